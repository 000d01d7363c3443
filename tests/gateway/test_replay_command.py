"""`tollgate replay` over a real ledger and over a real access log."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway import cli
from gateway.access_logs import AccessLog, read_line
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
    (window,) = told["windows"]
    assert (window["limit"], window["max"], window["over_limit"], window["suggested"]) == (250, 600, 1, 720)
    code, out = replay(capsys, "--config", "new.yaml", "--since", "2h")
    assert code == 0
    assert "days with refusals" in out


def test_an_access_log(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    lines = [orjson.dumps({**LINE, "at": f"2026-11-20T12:00:{second:02}Z"}) for second in (9, 5, 7)]
    lines += [b'{"event": "listening"}', b"not json", orjson.dumps({**LINE, "outcome": "rejected"})]
    (folder / "access.jsonl").write_bytes(b"\n".join(lines))
    code, out = replay(
        capsys, "--config", "new.yaml", "--log", "access.jsonl", "--since", "2026-11-20", "--json", "--store", "memory:"
    )
    told: Any = json.loads(out)
    assert code == 0
    assert (told["new"]["requests"], told["skipped_lines"]) == (3, 3)
    assert told["since"] == "2026-11-20T12:00:03Z"


def test_a_log_is_put_in_the_order_that_requests_began(folder: Path) -> None:
    path = folder / "log"
    spans = [(5.0, 1.0), (6.0, 5.0), (900.0, 1.0), (901.0, 300.0)]
    path.write_bytes(
        b"\n".join(
            orjson.dumps(
                {**LINE, "at": f"2026-11-20T12:{int(end) // 60:02}:{int(end) % 60:02}Z", "total_ms": took * 1000}
            )
            for end, took in spans
        )
    )
    began = [entry.at for entry in AccessLog(path, since=0.0)]
    assert began == sorted(began)
    assert len(began) == 4


def test_lines_that_are_no_request() -> None:
    entry = read_line(orjson.dumps(LINE))
    assert entry is not None
    assert (entry.held_input, entry.held_output, entry.input_tokens, entry.latency_s) == (40, 50, 40, 2.0)
    for wrong in ({"at": "noon"}, {"total_ms": None}, {"event": "other"}, {"outcome": "failed"}, {"counted": []}):
        assert read_line(orjson.dumps({**LINE, **wrong})) is None
    assert read_line(b'["request"]') is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--config", "none.yaml"), 1, "there is no such file"),
        (("--config", "new.yaml", "--since", "yesterday"), 1, "`yesterday` is no moment"),
        (("--config", "new.yaml", "--log", "none.jsonl"), 1, "none.jsonl cannot be read"),
        (("--config", "new.yaml", "--store", "memory:"), 3, "access log"),
        ((), 2, "--config"),
    ],
)
def test_what_is_wrong_is_said(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert replay(capsys, *arguments)[0] == code
    assert message in replay(capsys, *arguments)[1]
