import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import recorded
from tokenizers_offline.prompt import Accuracy, MediaPart, ThinkingPart


@pytest.fixture(autouse=True)
def models(monkeypatch) -> None:
    installed = Path(recorded.__file__).parents[1] / "models"
    monkeypatch.setenv("MODELS_DIR", os.environ.get("MODELS_DIR", str(installed)))


def chat(text: str, **context: object) -> dict[str, object]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "_ctx": context}


def test_count_and_bound_answer_as_the_gateway_would() -> None:
    # "Hello" is one token of o200k_base; a message costs four more and the reply three.
    assert recorded.count(chat("Hello", provider="openai"), "chat.completions") == 8
    assert recorded.bound(chat("Hello", provider="openai"), "chat.completions") == 8


def test_unknown_endpoints_are_not_answered_but_bounded() -> None:
    assert recorded.count(chat("Hello"), "audio.speech") is None
    assert recorded.bound(chat("Hello"), "audio.speech") > 8


def test_models_outside_the_catalog_are_estimates() -> None:
    found = recorded.measure({**chat("Hello"), "model": "never-heard-of"}, "chat.completions")
    assert found is not None
    assert found.accuracy is Accuracy.ESTIMATE
    assert found.upper > found.input_tokens


def test_true_sizes_replace_those_of_cut_media() -> None:
    body = {
        "messages": [
            {"content": [{"image_url": {"url": "data:image/png;base64,AAAA"}}, {"cipher": "short"}]},
        ]
    }
    facts = recorded._facts(
        body,
        [
            {"path": "$.messages[0].content[0].image_url.url", "width": 640, "height": 480},
            {"path": "$.messages[0].content[1].cipher", "chars": 900},
        ],
    )
    image = recorded._sized(MediaPart("image", data="AAAA"), facts)
    assert isinstance(image, MediaPart)
    assert (image.width, image.height) == (640, 480)
    thought = recorded._sized(ThinkingPart(opaque="short"), facts)
    assert isinstance(thought, ThinkingPart)
    assert len(thought.opaque) == 900


def test_every_endpoint_has_a_path_that_a_format_reads() -> None:
    for endpoint in recorded.PATHS:
        assert recorded.match("POST", recorded._path(endpoint, {}, "m")) is not None, endpoint


def test_main_prints_a_table(tmp_path: Path, monkeypatch, capsys) -> None:
    case = {
        "request": {"messages": [{"role": "user", "content": "Hello"}]},
        "model": "gpt-4o",
        "endpoint": "chat.completions",
        "provider": "openai",
        "features": ["text"],
        "class": "A",
        "prompt_tokens": 8,
    }
    cases = tmp_path / "cases.jsonl.gz"
    with gzip.open(cases, "wt") as file:
        file.write("\n".join(json.dumps(one) for one in [case, {**case, "endpoint": "audio.speech"}]))
    monkeypatch.setattr(sys, "argv", ["recorded", str(cases), "--class", "A", "--least", "1"])
    recorded.main()
    printed = capsys.readouterr().out
    assert "openai chat.completions text" in printed
    assert "100.0" in printed
    assert "1 cases of endpoints that no format reads" in printed
