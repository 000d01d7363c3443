"""What is measured: a proxy and its processes, and the gateway in several settings."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-bench"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Target:
    """A proxy under test and its processes."""

    name: str
    port: int
    command: list[str]
    headers: dict[str, str] = field(default_factory=dict)
    """What its callers send besides."""

    def start(self, logs: Path) -> float:
        """Start it; returns the seconds until it took a connection."""
        began = time.perf_counter()
        with (logs / f"{self.name.replace(' ', '-')}.log").open("wb") as log:
            self._child = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.5).close()
                return time.perf_counter() - began
            except OSError:
                if self._child.poll() is not None or time.perf_counter() - began > 60:
                    raise SystemExit(f"{self.name} did not start: see {logs}") from None
                time.sleep(0.01)

    def stop(self) -> None:
        """End it and its children."""
        os.killpg(self._child.pid, signal.SIGTERM)
        try:
            self._child.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def cpu_s(self) -> float:
        """User and system seconds of all its processes so far."""
        return sum(_cpu_s(pid) for pid in self._pids())

    def memory_mb(self) -> list[float]:
        """Proportional set size of each process, its first one first: shared pages are counted once."""
        return [_memory_mb(pid) for pid in self._pids()]

    def sockets(self) -> int:
        """Open sockets of all its processes."""
        return sum(_sockets(pid) for pid in self._pids())

    def wait_until_loaded(self, *, workers: int) -> None:
        """Wait for the workers that share the loaded tokenizers to be alone; one worker alone loads as it goes."""
        first, due = set[int](), time.perf_counter() + 120
        while workers > 1 and time.perf_counter() < due:
            now = set(self._pids()[1:])
            if len(now) == workers and not first:
                first = now  # they listen before they are forked
            elif len(now) == workers and not now & first:
                return
            time.sleep(0.1)

    def _pids(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _stat(int(entry.name))
                if fields:
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
        found, left = [], [self._child.pid]
        while left:
            pid = left.pop(0)
            found.append(pid)
            left += children.get(pid, [])
        return found


def _sockets(pid: int) -> int:
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            found += os.readlink(entry).startswith("socket:")
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK_S if fields else 0.0


def _memory_mb(pid: int) -> float:
    try:
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def gateway(
    folder: Path,
    upstream_port: int,
    *,
    name: str = "tollgate",
    keys: int = 1,
    budgets: int = 1,
    workers: int = 1,
    encodings: tuple[str, ...] = ("o200k_base",),
) -> Target:
    """The gateway with everything on: keys, exact counts, budgets in SQLite, ledger, headers, metrics, log."""
    port = free_port()
    known = [KEY] + [f"sk-other-{number}" for number in range(1, keys)]
    config = {
        "server": {"host": "127.0.0.1", "port": port, "workers": workers, "log_format": "json"},
        "store": {"url": f"sqlite:///{folder}/{name.replace(' ', '-')}.db"},
        "tokenizers": {"dir": os.environ.get("MODELS_DIR", str(ROOT / "models")), "preload": list(encodings)},
        "upstreams": [{"name": "mock", "url": f"http://127.0.0.1:{upstream_port}"}],
        "keys": [
            {"id": f"key{number}", "digest": "sha256:" + hashlib.sha256(key.encode()).hexdigest()}
            for number, key in enumerate(known)
        ],
        "budgets": [
            {
                "name": f"budget{number}",
                "each": "key",
                "limits": [{"tokens": 10**12, "per": "minute"}, {"tokens": 10**14, "per": "day"}],
            }
            for number in range(budgets)
        ],
    }
    path = folder / f"{name.replace(' ', '-')}.yaml"
    path.write_text(yaml.safe_dump(config))
    return Target(name, port, [sys.executable, "-m", "gateway", "serve", "--config", str(path)])
