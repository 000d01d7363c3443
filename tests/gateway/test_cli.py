from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway import cli
from tests.conftest import MODELS_DIR, digest

CONFIG = f"""
store: {{url: "sqlite:///STORE"}}
tokenizers: {{dir: "{MODELS_DIR}", models: {{mine: {{like: llama-2}}, my-embed: {{like: llama-2}}}}}}
upstreams: [{{name: echo, url: "echo:"}}]
keys:
  - {{id: alice, digest: "{digest("sk-alice")}", tags: {{team: search}}, expires: 2100-01-01}}
  - {{id: bob, digest: "{digest("sk-bob")}", disabled: true}}
budgets:
  - {{name: day, each: key, limits: [{{tokens: 100k, per: day}}, {{requests: 5, per: minute, sliding: true}}]}}
"""


@dataclass
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in an empty directory that has a config.yaml."""
    (tmp_path / "config.yaml").write_text(CONFIG.replace("STORE", str(tmp_path / "budgets.db")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "PORT", "MODELS_DIR", "LOG_LEVEL", "TOLLGATE_CONFIG", "TOLLGATE_STORE", "TOLLGATE_WORKERS"):
        monkeypatch.delenv(name, raising=False)

    def run_command(*arguments: str, stdin: str | None = None) -> Ran:
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as end:
            cli.main(list(arguments))
        captured = capsys.readouterr()
        return Ran(int(end.value.code or 0), captured.out, captured.err)

    return run_command


def test_every_command_has_help(run: Run) -> None:
    overview = run("--help")
    assert overview.code == 0
    for command in cli.COMMANDS:
        assert command in overview.out
        assert run(command, "--help").code == 0


def test_unknown_command_is_named_with_the_nearest(run: Run) -> None:
    ran = run("serv")
    assert ran.code == 2
    assert "there is no command `serv`; did you mean `serve`?" in ran.err


def test_version_is_told_both_ways(run: Run) -> None:
    assert run("--version").out.strip() == "0.1.0"
    versions = run("version", "--json").json()
    assert isinstance(versions, dict)
    assert versions["tollgate"] == "0.1.0"


def test_check_accepts_what_can_be_served(run: Run) -> None:
    ran = run("check")
    assert (ran.code, ran.out) == (0, "config.yaml: right (1 upstream, 2 keys, 1 budget)\n")
    assert run("check", "--json").json() == {
        "file": "config.yaml",
        "ok": True,
        "problems": [],
        "warnings": [],
        "upstreams": 1,
        "keys": 2,
        "budgets": 1,
    }


def test_check_names_every_mistake_and_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("server: {prot: 1}\ntime_zone: Mars\n", encoding="utf-8")
    ran = run("check", "bad.yaml")
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.splitlines() == [
        'bad.yaml:1:1: the file has no `upstreams`; add `upstreams: [{name: echo, url: "echo:"}]`',
        "bad.yaml:1:10: there is no field `prot` in `server`; did you mean `port`?",
        "bad.yaml:2:12: `time_zone: Mars` is not a time zone; write an IANA name such as `UTC` or `Europe/Berlin`",
    ]
    told = run("check", "bad.yaml", "--json")
    assert told.code == 1
    report = told.json()
    assert isinstance(report, dict)
    assert [problem["place"] for problem in report["problems"]] == ["bad.yaml:1:1", "bad.yaml:1:10", "bad.yaml:2:12"]


def test_check_prints_a_schema(run: Run) -> None:
    schema = run("check", "--schema").json()
    assert isinstance(schema, dict)
    assert {"server", "budgets"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    "command", [["serve"], ["keys", "list"], ["count", "--model", "gpt-4", "--text", "x"], ["models"]]
)
def test_bad_config_ends_a_command_with_its_mistakes(run: Run, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "config.yaml").write_text("server: {prot: 1}\n", encoding="utf-8")
    ran = run(*command)
    assert ran.code == 1
    assert "config.yaml cannot be used (2 mistakes):" in ran.err
    assert "config.yaml:1:10: there is no field `prot`" in ran.err


def test_count_counts_text_exactly(run: Run) -> None:
    assert run("count", "--model", "gpt-3.5-turbo", "--text", "Hello, 世界！").out == "7 tokens (exact; cl100k_base)\n"


def test_count_reads_a_file_and_standard_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Hello, 世界！", encoding="utf-8")
    from_file = run("count", "--model", "llama-2", "--file", "text.txt", "--json").json()
    assert from_file == run("count", "--model", "llama-2", "--file", "-", "--json", stdin="Hello, 世界！").json()
    assert isinstance(from_file, dict)
    assert (from_file["accuracy"], from_file["encoding"]) == ("exact", "llama-2")


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ({"model": "mine", "messages": [{"role": "user", "content": "Hello"}]}, []),
        ({"model": "mine", "system": "s", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}, []),
        ({"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}, ["--model", "mine"]),
        ({"model": "mine", "input": "Hello"}, []),
        ({"model": "my-embed", "input": "Hello"}, []),
        ({"model": "mine", "prompt": "Hello"}, []),
    ],
    ids=["openai", "anthropic", "gemini", "responses", "embeddings", "completions"],
)
def test_count_counts_a_request_of_each_api(
    run: Run, tmp_path: Path, body: dict[str, object], arguments: list[str]
) -> None:
    (tmp_path / "r.json").write_text(json.dumps(body), encoding="utf-8")
    ran = run("count", "--request", "r.json", "--json", *arguments)
    assert ran.code == 0, ran.err
    counted = ran.json()
    assert isinstance(counted, dict)
    assert 1 <= counted["token_count"] <= counted["upper_bound"]


def test_count_of_a_chat_follows_openais_published_rule(run: Run, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hello"}]  # 3 + role 1 + content 1, and 3 for the answer
    (tmp_path / "r.json").write_text(json.dumps({"model": "gpt-4", "messages": messages}), encoding="utf-8")
    assert run("count", "--request", "r.json").out == "8 tokens (exact; cl100k_base)\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "gpt-4x-nothing", "--text", "x"], 1, "is not in the tokenizer catalog"),
        (["--text", "x"], 2, "--text and --file need --model"),
        (["--model", "gpt-4"], 2, "give one of --text, --file and --request"),
        (["--model", "gpt-4", "--file", "missing.txt"], 1, "missing.txt cannot be read: No such file"),
        (["--request", "list.json"], 1, "the request is not a JSON object"),
        (["--request", "broken.json"], 1, "the request is not JSON"),
        (["--request", "other.json"], 1, "the request has no `messages`"),
        (["--request", "wrong.json"], 1, "the request cannot be read as openai_chat"),
        (["--request", "wrong.json", "--path", "/nowhere"], 1, "no format answers to /nowhere"),
    ],
)
def test_count_says_what_is_wrong(run: Run, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"model": "gpt-4"}')
    (tmp_path / "wrong.json").write_text('{"model": "gpt-4", "messages": 5}')
    ran = run("count", *arguments)
    assert ran.code == code
    assert message in ran.err


def test_count_says_which_tokenizer_is_missing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "empty"))
    ran = run("count", "--model", "gpt-4", "--text", "x")
    assert ran.code == 3
    assert "tollgate tokenizers fetch cl100k_base" in ran.err


def test_models_lists_all_and_resolves_names(run: Run) -> None:
    listed = run("models", "--json").json()
    assert isinstance(listed, list)
    assert {"gpt-4o", "mine", "qwen3"} <= {row["id"] for row in listed}
    (resolved,) = json.loads(run("models", "openai/gpt-4o-2024-08-06", "--json").out)
    assert (resolved["family"], resolved["encoding"]) == ("gpt-4o", "o200k_base")
    assert "o200k_base" in run("models", "gpt-4o").out
    unknown = run("models", "gpt-4x")
    assert (unknown.code, "Nearest names" in unknown.err) == (1, True)


def test_new_key_is_shown_once_with_its_entry(run: Run) -> None:
    made = run("keys", "new", "carol", "--json").json()
    assert isinstance(made, dict)
    assert made["key"].startswith("sk-")
    assert made["digest"] == digest(made["key"])
    shown = run("keys", "new", "carol").out
    key = shown.splitlines()[0]
    assert f'- id: carol\n    digest: "{digest(key)}"' in shown
    assert run("keys", "new", "carol").out.splitlines()[0] != key


def test_new_key_refuses_an_id_that_config_would_refuse(run: Run) -> None:
    ran = run("keys", "new", "two words")
    assert ran.code == 1
    assert "is not a name" in ran.err


def test_digest_reads_standard_input_only(run: Run) -> None:
    assert run("keys", "digest", stdin="sk-demo\n").out.strip() == digest("sk-demo")
    assert run("keys", "digest", stdin="\n").code == 1
    assert run("keys", "digest", "sk-demo").code == 2


def test_keys_are_listed_without_secrets(run: Run) -> None:
    listed = run("keys", "list", "--json").json()
    assert isinstance(listed, list)
    assert [(row["id"], row["disabled"], row["expires"]) for row in listed] == [
        ("alice", False, "2100-01-01T00:00:00Z"),
        ("bob", True, None),
    ]
    assert "team=search" in run("keys", "list").out


def test_status_shows_budgets_as_the_store_has_them(run: Run) -> None:
    rows = run("status", "--json").json()
    assert isinstance(rows, list)
    assert [(row["key"], row["unit"], row["per"], row["limit"], row["used"]) for row in rows] == [
        ("alice", "tokens", "day", 100_000, 0),
        ("alice", "requests", "sliding minute", 5, 0),
        ("bob", "tokens", "day", 100_000, 0),
        ("bob", "requests", "sliding minute", 5, 0),
    ]
    table = run("status", "--key", "alice").out
    assert "100,000" in table
    assert "bob" not in table


def test_status_says_why_it_cannot(run: Run, tmp_path: Path) -> None:
    assert run("status", "--key", "nobody").code == 1
    assert run("status", "--store", "memory:").code == 3
    (tmp_path / "text.db").write_text("this is no database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "text.db").execute("select 1 from sqlite_master")
    broken = run("status", "--store", f"sqlite:///{tmp_path / 'text.db'}")
    assert broken.code == 3
    assert "the store cannot be used" in broken.err


def test_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "0.1.0"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, gateway.cli; print([m for m in ('aiohttp', 'pydantic', 'rich', 'structlog') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
