"""What `tollgate check` warns of: each warning once, where it belongs, and none for a sound configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway import cli
from gateway.config import load_settings
from gateway.config.advice import advise
from gateway.config.document import read_document
from gateway.config.problems import Problem
from gateway.config.schema import json_schema
from tests.conftest import MODELS_DIR, digest

ROOT = Path(__file__).resolve().parents[2]
KEYS = f"""keys:
  - {{id: alice, digest: "{digest("a")}", tags: {{team: search}}}}
  - {{id: bob, digest: "{digest("b")}", tags: {{team: ads}}}}
"""
DAY = "budgets:\n  - {name: day, limits: [{tokens: 1M, per: day}]}\n"
ECHO = 'upstreams: [{name: echo, url: "echo:"}]\n'


def warned(tmp_path: Path, text: str, *, tokenizers: str = "") -> tuple[Problem, ...]:
    path = tmp_path / "config.yaml"
    path.write_text(f'tokenizers: {{dir: "{MODELS_DIR}"{tokenizers}}}\n' + text)
    return advise(path, load_settings(path, env={}), env={})


def budget(rest: str) -> str:
    return ECHO + KEYS + DAY + f"  - {{name: odd, {rest}}}\n"


def test_nothing_is_said_of_a_sound_configuration(tmp_path: Path) -> None:
    assert warned(tmp_path, ECHO + KEYS + DAY) == ()
    shipped = ROOT / "config.yaml"
    assert advise(shipped, load_settings(shipped, env={"MODELS_DIR": str(MODELS_DIR)}), env={}) == ()


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (budget("match: {key: carol}, limits: [{tokens: 1k, per: day}]"), 8, "for nobody: no key of this file"),
        (budget("match: {team: 'x*'}, limits: [{tokens: 1k, per: day}]"), 8, "has such a team"),
        (budget("match: {key: bob, team: search}, limits: [{tokens: 1k, per: day}]"), 8, "such a key and team"),
        (budget("match: {upstream: openai}, limits: [{tokens: 1k, per: day}]"), 8, "no upstream has such a name"),
        (
            budget("limits: [{tokens: 10, per: minute}, {tokens: 100k, per: day}]"),
            8,
            "100,000 tokens per day are never",
        ),
        (budget("limits: [{tokens: 1M, per: minute}, {tokens: 100k, per: day}]"), 8, "per minute are never reached"),
        (budget("limits: [{input_tokens: 5k, per: day}, {tokens: 2k, per: day}]"), 8, "5,000 input tokens per day"),
        (budget("limits: [{requests: 0, per: day}]"), 8, "less than one request needs (1 at least)"),
        (budget("limits: [{tokens: 100, per: day}], output_hold: 200"), 8, "of which 200 are held for the answer"),
        (budget("limits: [{input_tokens: 3, per: day}]"), 8, "3 input tokens per day are less"),
        (budget("max_input_tokens: 9k, limits: [{tokens: 8k, per: day}]"), 8, "`max_input_tokens: 9000` lets through"),
        (budget("max_output_tokens: 9k, limits: [{output_tokens: 8k, per: day}]"), 8, "`max_output_tokens: 9000` lets"),
        (
            ECHO + KEYS + DAY.replace("name: day", "name: day, match: {team: ads}"),
            4,
            "no budget limits the key `alice`",
        ),
        (ECHO + KEYS + DAY.replace("name: day", "name: day, mode: shadow"), 7, "no budget limits anybody"),
        (ECHO + KEYS, 1, "no budget limits anybody"),
    ],
)
def test_a_budget_that_is_likely_not_meant_so(tmp_path: Path, text: str, line: int, what: str) -> None:
    (warning,) = warned(tmp_path, text)
    assert what in warning.what
    assert warning.place.startswith(f"{tmp_path}/config.yaml:{line}:")
    assert warning.remedy


@pytest.mark.parametrize(
    "limits",
    [
        "{tokens: 1k, per: minute}, {tokens: 1M, per: day}",
        "{tokens: 1k, per: minute, sliding: true}, {tokens: 61k, per: hour}",
        "{tokens: 100, per: day}, {tokens: 600, per: week}, {tokens: 3000, per: month}, {tokens: 9999, per: total}",
        "{tokens: 100, per: week}, {tokens: 600, per: month}",
        "{input_tokens: 5k, per: day}, {output_tokens: 1k, per: day}, {requests: 9, per: day}, {concurrent: 2}",
        "{tokens: 2k, per: week}, {tokens: 3k, per: day, sliding: true}",
    ],
)
def test_limits_that_can_be_reached_are_not_warned_of(tmp_path: Path, limits: str) -> None:
    assert warned(tmp_path, budget(f"limits: [{limits}]")) == ()


def own(*upstreams: str) -> str:
    return f"upstreams: [{', '.join(f'{{{each}}}' for each in upstreams)}]\n" + KEYS + DAY


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (own('name: a, url: "echo:"', 'name: b, url: "http://b"'), "upstream `b` gets no request: `a` above"),
        (
            own('name: a, url: "echo:"', 'name: b, url: "http://b", models: prod, deployments: {prod: gpt-4o}'),
            "upstream `b` gets no request: `a` above",
        ),
        (
            own('name: a, url: "echo:", models: ["gpt-*"]', 'name: b, url: "http://b", models: ["gpt-4*", "o1*"]'),
            "`gpt-4*` never comes to upstream `b`: `a` above takes it",
        ),
        (
            own('name: a, url: "echo:", prefix: /x', 'name: b, url: "http://b", prefix: /x/y', 'name: c, url: "echo:"'),
            "upstream `b` gets no request",
        ),
    ],
)
def test_an_upstream_behind_another(tmp_path: Path, text: str, what: str) -> None:
    (warning,) = warned(tmp_path, text)
    assert what in warning.what


@pytest.mark.parametrize(
    "text",
    [
        own('name: a, url: "echo:", models: ["gpt-4*"]', 'name: b, url: "http://b", models: ["gpt-*"]'),
        own('name: a, url: "echo:", formats: [gemini]', 'name: b, url: "http://b"'),
        own('name: a, url: "echo:", prefix: /a', 'name: b, url: "http://b", prefix: /b', 'name: c, url: "echo:"'),
        own('name: a, url: "echo:", models: "gpt*"', 'name: b, url: "http://b", deployments: {prod: gpt-4o}'),
    ],
)
def test_upstreams_that_each_get_requests(tmp_path: Path, text: str) -> None:
    assert warned(tmp_path, text) == ()


def test_tokenizers_that_are_not_installed(tmp_path: Path) -> None:
    (warning,) = warned(tmp_path, own('name: a, url: "echo:", models: gpt-nonsense-9'))
    assert "`gpt-nonsense-9` cannot be counted" in warning.what
    path = tmp_path / "config.yaml"
    path.write_text(f"tokenizers: {{dir: {tmp_path}/none}}\n" + ECHO + KEYS + DAY)
    (warning,) = advise(path, load_settings(path, env={}), env={})
    assert (warning.place, "no tokenizer is installed" in warning.what) == (f"{path}:1:19", True)
    folder = tmp_path / "few"
    (folder / "encodings").mkdir(parents=True)
    (folder / "encodings/cl100k_base.json").symlink_to(MODELS_DIR / "encodings/cl100k_base.json")
    path.write_text(
        f"tokenizers: {{dir: {folder}, preload: [o200k_base]}}\n" + own('name: a, url: "echo:", models: gpt-4o')
    )
    preload, model = advise(path, load_settings(path, env={}), env={})
    assert "`o200k_base` is not installed" in preload.what
    assert "`gpt-4o` is counted with `o200k_base`" in model.what
    assert model.remedy == "run `tollgate tokenizers fetch o200k_base`"


def test_tls_files_that_are_not_there(tmp_path: Path) -> None:
    text = f"server: {{tls: {{cert: {tmp_path}/config.yaml, key: /none.key}}}}\n" + ECHO + KEYS + DAY
    (warning,) = warned(tmp_path, text)
    assert (warning.place, warning.what.partition(":")[0]) == (
        f"{tmp_path}/config.yaml:2:{text.index('/none.key') + 1}",
        "there is no file `/none.key`",
    )


@pytest.mark.parametrize(
    ("written", "placeholder", "name"),
    [
        ("$OPENAI_API_KEY", "$OPENAI_API_KEY", "OPENAI_API_KEY"),
        ("{{ .Values.apiKey }}", "{{ .Values.apiKey }}", "apiKey"),
        ("<your key>", "<your key>", "yourkey"),
        ("%OPENAI_KEY%", "%OPENAI_KEY%", "OPENAI_KEY"),
    ],
)
def test_keys_that_another_tool_should_have_put_in(tmp_path: Path, written: str, placeholder: str, name: str) -> None:
    (warning,) = warned(tmp_path, own(f'name: a, url: "http://a", api_key: "{written}"'))
    assert f"`api_key` holds `{placeholder}`" in warning.what
    assert f"`${{{name}}}`" in warning.remedy
    (warning,) = warned(tmp_path, own(f'name: a, url: "http://a", headers: {{X-Auth: "Bearer {written}"}}'))
    assert placeholder in warning.what
    assert warned(tmp_path, own(f'name: a, url: "http://a", api_key: "real{written}key"')) == ()


def test_an_address_whose_version_callers_say_too(tmp_path: Path) -> None:
    (warning,) = warned(tmp_path, own('name: a, url: "https://api.openai.com/v1"'))
    assert "is /v1/v1/... there" in warning.what
    assert warning.remedy == "write `https://api.openai.com`"
    behind_a_prefix = own('name: a, url: "https://a/v1", prefix: /a', 'name: b, url: "echo:"')
    assert warned(tmp_path, behind_a_prefix) == ()


def test_a_model_that_no_upstream_serves(tmp_path: Path) -> None:
    text = own('name: a, url: "echo:", models: "gpt-*"').replace("name: day", "name: day, match: {model: 'claude-*'}")
    assert ["no upstream serves such a model" in each.what for each in warned(tmp_path, text)] == [True]


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(["check", *arguments])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_warnings_do_not_fail_a_check_unless_asked_to(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"tokenizers: {{dir: {MODELS_DIR}}}\n" + ECHO + KEYS)
    code, out, err = check(capsys, str(path))
    assert (code, "right" in out) == (0, True)
    assert f"{path}:1:1: warning: no budget limits anybody; add one" in err
    assert check(capsys, str(path), "--strict")[0] == 1
    told: dict[str, Any] = json.loads(check(capsys, str(path), "--json")[1])
    assert (told["ok"], len(told["warnings"])) == (True, 1)


def test_the_committed_schema_is_the_models_own() -> None:
    committed = json.loads((ROOT / "docs/config.schema.json").read_text())
    assert committed == json_schema(), "run: tollgate check --schema > docs/config.schema.json"
    first = (ROOT / "config.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=docs/config.schema.json"


def told_by_an_editor(path: Path) -> list[str]:
    """What the committed schema has against a file, as an editor would show it."""
    schema = json.loads((ROOT / "docs/config.schema.json").read_text())
    document = read_document(path, env={})
    return [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(document.data)]


def test_editors_accept_the_shipped_file_and_name_its_mistakes(tmp_path: Path) -> None:
    assert told_by_an_editor(ROOT / "config.yaml") == []
    path = tmp_path / "config.yaml"
    path.write_text(
        (ROOT / "config.yaml").read_text().replace("time_zone: UTC", "time_zone: 5").replace("port:", "prot:")
    )
    assert len(told_by_an_editor(path)) == 2


def test_every_field_of_the_schema_is_described() -> None:
    schema: Any = json_schema()
    sections = [schema, *schema["$defs"].values()]
    bare = [
        f"{section.get('title')}.{name}"
        for section in sections
        for name, field in section.get("properties", {}).items()
        if not field.get("description")
    ]
    assert bare == []
