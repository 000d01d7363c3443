"""`python -m benchmarks`: which sections run, what they need, and what they print."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks.bills import measure_bills
from benchmarks.counting import Writer
from benchmarks.report import Figure, Report


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four calls: one exact, one short by far, one estimate, one of an API that no format reads."""
    monkeypatch.setenv("MODELS_DIR", str(Path(bench.__file__).parents[1] / "models"))
    hello = {
        "request": {"messages": [{"role": "user", "content": "Hello"}]},
        "model": "gpt-4o",
        "endpoint": "chat.completions",
        "provider": "openai",
        "features": ["text"],
        "class": "A",
        "prompt_tokens": 8,
    }
    claude = {"model": "claude-sonnet-4-5", "endpoint": "anthropic.messages", "provider": "anthropic", "class": "B"}
    unread = {"endpoint": "audio.speech", "class": "B"}
    path = tmp_path / "cases.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join(json.dumps(hello | more) for more in ({}, {"prompt_tokens": 100}, claude, unread)))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    return int(ended.value.code or 0)


def test_bills_are_compared_by_class_and_feature(cases: Path) -> None:
    figures = {figure.name: figure.value for figure in measure_bills(cases).figures}
    assert figures["A: exact"] == figures["A: OpenAI chat text, exact"] == figures["A: held too little"] == 50
    assert figures["counts labelled exact that are"] == 50
    assert figures["B: answered"] == 50
    assert figures["B: Claude text, within 5 %"] == 100
    assert figures["B: held too little"] == 0


def test_recorded_section_prints_json(
    cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "recorded", "--cases", str(cases), "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["python"]
    assert found["date"]
    (report,) = found["reports"]
    missed = {figure["name"] for figure in report["figures"] if figure["met"] is False}
    assert {"A: exact", "B: answered"} <= missed


@pytest.mark.parametrize("arguments", [["recorded"], ["recorded", "--cases", "/nowhere"], ["counting"]])
def test_section_asked_for_by_name_must_be_able_to_run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    monkeypatch.delenv("CASES", raising=False)
    assert run(monkeypatch, *arguments) == 1
    assert "left out" in capsys.readouterr().out


def test_unknown_section_is_an_error_that_names_the_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "speed") == 2
    assert "no such section: speed" in capsys.readouterr().err


def test_figures_know_whether_their_goal_is_met() -> None:
    figures = (Figure("a", 1, "ms", 2), Figure("b", 1, "x", 2, least=True), Figure("c", 1, "ms"))
    assert [figure["met"] for figure in Report("s", figures).as_json()["figures"]] == [True, False, None]


def test_texts_are_as_long_as_asked_and_never_the_same() -> None:
    writer = Writer(seed=1)
    texts = {writer.text(500) for _ in range(20)}
    assert len(texts) == 20
    assert {len(text) for text in texts} <= set(range(400, 501))
