"""Worker processes: each opens one runtime."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from benchmarks.overspend.fleet import free_port
from tests.conftest import MODELS_DIR, config_for

ROOT = Path(__file__).resolve().parents[2]


def serve(folder: Path, **sections: object) -> tuple[subprocess.Popen[str], int]:
    port = free_port()
    config = config_for(server={"host": "127.0.0.1", "port": port, "workers": 2}, **sections)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    child = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--config", str(path), "--log-format", "json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return child, port


def owners_in(path: Path) -> list[str]:
    if not path.exists():
        return []
    connection = sqlite3.connect(path, timeout=5)
    try:
        return [row[0] for row in connection.execute("SELECT owner FROM owners")]
    except sqlite3.OperationalError:  # the tables are not made yet
        return []
    finally:
        connection.close()


def test_a_worker_opens_one_runtime_only(tmp_path: Path) -> None:
    """With two, the idle one would take the holds of the serving one for those of a dead process."""
    path = tmp_path / "budgets.db"
    child, port = serve(tmp_path, store={"url": f"sqlite:///{path}"})
    try:
        deadline = time.monotonic() + 30
        while len({owner.rsplit(":", 2)[1] for owner in owners_in(path)}) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            assert json.load(answer)["status"] == "ok"
        assert len(owners_in(path)) == 2
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        assert child.wait(20) == 0
        assert child.stdout is not None
        child.stdout.close()


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_first_workers_answer_while_tokenizers_load_and_hand_over_without_an_error(tmp_path: Path) -> None:
    tokenizers = {"dir": str(MODELS_DIR), "preload": ["o200k_base"]}
    child, port = serve(tmp_path, store={"url": f"sqlite:///{tmp_path / 'budgets.db'}"}, tokenizers=tokenizers)
    answered, first = 0, set[int]()
    try:
        deadline = time.monotonic() + 60
        while not answered or children_of(child.pid) & first or len(children_of(child.pid)) != 2:
            assert time.monotonic() < deadline
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                    assert json.load(answer)["status"] == "ok"
            except urllib.error.URLError:
                assert not answered  # nobody listens yet
                time.sleep(0.02)
            else:
                if len(first) < 2:  # the second may be forked only after the first answers
                    first |= children_of(child.pid)
                answered += 1
        assert len(first) == 2
        assert answered > 2
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        assert child.wait(20) == 0
        assert child.stdout is not None
        child.stdout.close()
