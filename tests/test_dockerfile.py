"""The Dockerfile held against the code: its fetching stage has what fetching needs, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_architecture import reachable

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STAGES = dict(re.findall(r"(?ms)^FROM \S+(?: AS (\w+))?\n(.*?)(?=^FROM |\Z)", DOCKERFILE))
"""What each stage does, by name; the last has none."""
BASES = re.findall(r"(?m)^FROM (\S+)", DOCKERFILE)


def copied(stage: str) -> set[str]:
    """What a stage takes from the build's context."""
    instructions = re.findall(r"(?m)^COPY (?!--from)(.*)$", STAGES[stage])
    return {source for instruction in instructions for source in instruction.split()[:-1]}


def test_tokenizers_are_fetched_again_only_when_fetching_changes() -> None:
    needed = {module.replace(".", "/") + ".py" for module in reachable("tokenizers_offline.__main__")}
    needed = {"tokenizers_offline/__init__.py" if path == "tokenizers_offline.py" else path for path in needed}
    assert copied("tokenizers") == needed | {"tokenizers_offline/encodings.yaml"}
    assert copied("packages") == {"pyproject.toml"}


def test_image_copies_nothing_that_the_context_leaves_out() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for stage in STAGES:
        assert {source.split("/")[0] for source in copied(stage)} <= kept | {"."}


def test_base_can_be_chosen_for_both_ends_of_the_build() -> None:
    assert BASES[0] == BASES[-1] == "${BASE_IMAGE}"
    assert set(BASES[1:-1]) == {"packages"}
    assert not re.search(r"(?m)^RUN .*(pip|apt)", STAGES[""])
