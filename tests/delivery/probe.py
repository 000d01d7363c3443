"""Run as a script inside a network namespace: starts a gateway there, uses it as callers do, and tells what it saw.

    python3 probe.py SPECIFICATION     a JSON object: serve (command), port, healthcheck and look (commands)

Only the standard library, for it may run under any Python. What it prints is one JSON object.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HEALTHY_WITHIN_S = 240.0
NOWHERE = "192.0.2.1"
"""An address for documentation, which nobody has: with a route this would time out, without one it is refused here."""


def answer(url: str, body: Any = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=120) as response:
        text = response.read()
    return json.loads(text) if response.headers["Content-Type"].startswith("application/json") else text.decode()


def unreachable() -> str:
    """How a connection to elsewhere fails."""
    try:
        socket.create_connection((NOWHERE, 443), timeout=5).close()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "connected"


def healthy(base: str, process: subprocess.Popen[bytes]) -> float:
    """Seconds until /health answered 200."""
    started = time.monotonic()
    while time.monotonic() < started + HEALTHY_WITHIN_S:
        if process.poll() is not None:
            raise SystemExit(f"the gateway ended with {process.returncode}")
        try:
            answer(f"{base}/health")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.01)
        else:
            return time.monotonic() - started
    raise SystemExit("the gateway does not get healthy")


def of_process(pid: int) -> dict[str, Any]:
    """Who a process is, what it may do, and what it took so far."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "uids": sorted({int(uid) for uid in lines["Uid"].split()}),
        "capabilities": int(lines["CapEff"], 16) | int(lines["CapBnd"], 16),
        "cpu_s": (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"),
        "interfaces": [line.split(":")[0].strip() for line in Path(f"/proc/{pid}/net/dev").open() if ":" in line],
        "routes": Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:],
    }


def run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def main(wanted: dict[str, Any]) -> dict[str, Any]:
    base = f"http://127.0.0.1:{wanted['port']}"
    found: dict[str, Any] = {"unreachable": unreachable()}
    process = subprocess.Popen(wanted["serve"], stdout=sys.stderr)
    try:
        found["healthy_s"] = healthy(base, process)
        found["process"] = of_process(process.pid)
        found["health"] = answer(f"{base}/health")
        text = {"text": "Hello, 世界！", "model_name": "gpt-4"}
        found["calculate"] = answer(f"{base}/calculate", text)
        chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20}
        found["chat"] = answer(f"{base}/v1/chat/completions", chat, Authorization="Bearer sk-demo")
        found["budgets"] = answer(f"{base}/budgets", Authorization="Bearer sk-demo")
        found["metrics"] = "tollgate_" in answer(f"{base}/metrics")
        found["docs"] = "swagger" in answer(f"{base}/docs").lower()
        found["models"] = {each["id"]: each["available"] for each in answer(f"{base}/models")["data"]}
        for name in ("healthcheck", "look"):
            if name in wanted:
                found[name] = run(wanted[name])
    finally:
        process.send_signal(signal.SIGTERM)
        found["ended"] = process.wait(timeout=60)
    if "healthcheck" in wanted:
        found["healthcheck_after"] = run(wanted["healthcheck"])
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
