"""`tollgate replay` over a real ledger and over a real access log."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway import cli
from gateway.config import load_settings
from gateway.replaying import ModelMost, Past, replay_each
from policies.ledger import LedgerEntry
from policies.stores import open_store
from tests.conftest import MODELS_DIR, digest

BASE = f"""
store: {{url: "sqlite:///STORE"}}
tokenizers: {{dir: "{MODELS_DIR}"}}
upstreams: [{{name: echo, url: "echo:"}}]
keys: [{{id: alice, digest: "{digest("sk-alice")}"}}]
budgets: [{{name: day, each: key, limits: [{{tokens: LIMIT, per: total}}]}}]
"""
LINE = {
    "event": "request", "at": "2026-11-20T12:00:02Z", "request_id": "r", "outcome": "ok", "key_id": "alice",
    "format": "openai_chat", "model": "gpt-4o", "upstream": "echo", "total_ms": 2000.0, "counted": 40, "held": 90,
    "used_input": 40, "used_output": 20, "source": "reported", "status": 200,
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, limit in (("config.yaml", "100k"), ("new.yaml", "250")):
        text = BASE.replace("STORE", str(tmp_path / "budgets.db")).replace("LIMIT", limit)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in ("TOLLGATE_CONFIG", "TOLLGATE_STORE", "MODELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def replay(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(["replay", *arguments])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out + captured.err


def write_ledger(folder: Path, *, requests: int) -> None:
    async def write() -> None:
        store = open_store(f"sqlite:///{folder / 'budgets.db'}")
        await store.ping()
        for number in range(requests):
            store.record(
                LedgerEntry(
                    f"r{number}", time.time() - 3600 + number, "alice", "gpt-4o", "echo", "ok", held_input=40,
                    held_output=50, input_tokens=40, output_tokens=20, counted_tokens=40, source="reported",
                    output_cap=50, endpoint="openai_chat", latency_s=0.5,
                )
            )  # fmt: skip
        await store.close()

    asyncio.run(write())


def test_a_ledger_under_a_smaller_budget(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_ledger(folder, requests=10)
    code, out = replay(capsys, "--config", "new.yaml", "--since", "2h", "--json")
    told: Any = json.loads(out)
    assert code == 0
    assert (told["current"]["admitted"], told["current"]["refused"]) == (10, 0)
    assert (told["new"]["admitted"], told["new"]["refused"], told["new"]["tokens_admitted"]) == (3, 7, 180)
    assert sum(day["refused"] for day in told["days"]) == 7
    assert all(day["refused_now"] == 0 for day in told["days"])
    first = next(day for day in told["days"] if day["refused"])
    assert (first["first_refusal_request"], first["first_refusal_by"]) == (
        "r3",
        {"reason": "quota_spent", "scope": "key=alice", "unit": "tokens", "per": "total", "limit": 250},
    )
    assert (told["keys"][0]["key"], told["keys"][0]["new"]["refused"]) == ("alice", 7)
    assert (told["budgets"][0]["budget"], told["budgets"][0]["current"]["refused"]) == ("day", 0)
    assert sum(day["new"]["tokens_refused"] for day in told["per_day"]) == told["new"]["tokens_refused"] == 420
    (window,) = told["windows"]
    assert (window["limit"], window["limit_now"], window["max"], window["over_limit"]) == (250, 100_000, 600, 1)
    assert (window["suggested"], window["partial"]) == (720, True)
    code, out = replay(capsys, "--config", "new.yaml", "--since", "2h")
    assert code == 0
    assert "days with refusals" in out


def write_log(path: Path) -> None:
    lines = [orjson.dumps({**LINE, "at": f"2026-11-20T12:00:{second:02}Z"}) for second in (9, 5, 7)]
    lines += [b'{"event": "listening"}', b"not json", orjson.dumps({**LINE, "outcome": "rejected"}), b'{"event"']
    text = b"\n".join(lines)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.mark.parametrize("name", ["access.jsonl", "access.jsonl.gz"])
def test_an_access_log(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> None:
    write_log(folder / name)
    code, out = replay(capsys, "--config", "new.yaml", "--log", name, "--json", "--store", "memory:")
    told: Any = json.loads(out)
    assert code == 0
    assert (told["new"]["requests"], told["since"]) == (3, "2026-11-20T12:00:03Z")
    assert told["log"] == {"other_lines": 2, "malformed_lines": 2, "first_malformed_line": 5}
    code, out = replay(capsys, "--config", "new.yaml", "--log", name, "--since", "2026-11-20T12:00:04Z")
    assert code == 0
    assert "2 lines cannot be read and left out; the first is line 5: it is no JSON object" in out


def test_an_access_log_on_standard_input(folder: Path) -> None:
    write_log(folder / "access.jsonl.gz")
    with (folder / "access.jsonl.gz").open("rb") as log:
        command = [sys.executable, "-m", "gateway", "replay", "--config", "new.yaml", "--log", "-", "--json"]
        told = json.loads(subprocess.run(command, stdin=log, stdout=subprocess.PIPE, check=True).stdout)
    assert (told["new"]["requests"], told["log"]["malformed_lines"]) == (3, 2)


def test_a_budget_of_one_configuration_only(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_ledger(folder, requests=10)
    (folder / "new.yaml").write_text((folder / "new.yaml").read_text().replace("name: day", "name: other"))
    told: Any = json.loads(replay(capsys, "--config", "new.yaml", "--since", "2h", "--json")[1])
    rows = {row["budget"]: row for row in told["days"]}
    assert (rows["other"]["refused"], rows["other"]["refused_now"]) == (7, None)
    assert (rows["day"]["refused"], rows["day"]["admitted_now"]) == (None, 10)
    assert told["windows"][0]["limit_now"] is None


def test_a_report_to_look_at(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_ledger(folder, requests=10)
    code, out = replay(capsys, "--config", "new.yaml", "--since", "2h", "--html", "report.html")
    assert code == 0
    assert "the report is in report.html" in out
    assert "Refused by the new" in (folder / "report.html").read_text()


def test_the_commands_of_its_documentation(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """All but the pipe, which `test_an_access_log_on_standard_input` tries."""
    write_ledger(folder, requests=5)
    write_log(folder / "access.jsonl")
    write_log(folder / "access.jsonl.gz")
    text = (Path(cli.__file__).parent.parent / "docs" / "replay.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = [line.partition(" > ")[0] for line in "".join(blocks).splitlines() if line.startswith("tollgate ")]
    assert len(commands) >= 6
    for command in commands:
        with pytest.raises(SystemExit) as end:
            cli.main(shlex.split(command)[1:])
        assert not end.value.code, capsys.readouterr().err


async def test_a_helping_process_finds_the_same(folder: Path) -> None:
    path = folder / "access.jsonl"
    await asyncio.to_thread(write_log, path)
    settings = await asyncio.to_thread(load_settings, folder / "new.yaml", env={})
    policies = {"new": settings.policy, "current": settings.policy}
    past, most = Past(path, is_log=True, since=0.0), ModelMost.of(settings.tokenizers)
    here = await replay_each(past.pages(), None, policies, model_max=most)
    apart = await replay_each(past.pages(), past, policies, model_max=most)
    assert here["current"].windows == apart["current"].windows == here["new"].windows
    (day,) = here["current"].days
    assert here["current"].tallies(day) == apart["current"].tallies(day)


async def test_a_helping_process_tells_what_went_wrong(folder: Path) -> None:
    path = folder / "access.jsonl.gz"
    await asyncio.to_thread(path.write_bytes, gzip.compress(orjson.dumps(LINE))[:-4])
    settings = await asyncio.to_thread(load_settings, folder / "new.yaml", env={})
    past = Past(path, is_log=True, since=0.0)

    async def nothing() -> Any:
        for page in ():
            yield page

    with pytest.raises(OSError, match="gzip file is broken"):
        await replay_each(
            nothing(),
            past,
            {"new": settings.policy, "current": settings.policy},
            model_max=ModelMost.of(settings.tokenizers),
        )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--config", "none.yaml"), 1, "there is no such file"),
        (("--config", "new.yaml", "--since", "yesterday"), 1, "`yesterday` is no moment"),
        (("--config", "new.yaml", "--log", "none.jsonl"), 1, "none.jsonl cannot be read"),
        (("--config", "new.yaml", "--log", "new.yaml", "--until", "noon"), 1, "`noon` is no moment"),
        (("--config", "new.yaml", "--html", "no/report.html"), 1, "there is no folder no"),
        (("--config", "new.yaml", "--html", "."), 1, "cannot be written: Is a directory"),
        (("--config", "new.yaml", "--store", "memory:"), 3, "access log"),
        ((), 2, "--config"),
    ],
)
def test_what_is_wrong_is_said(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert replay(capsys, *arguments)[0] == code
    assert message in replay(capsys, *arguments)[1]
