"""Commands in a network namespace of their own, which has a loopback interface and no route to anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROBE = Path(__file__).with_name("probe.py")
ROOT = Path(__file__).resolve().parents[2]

_WITHOUT_NETWORK = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips where a program is missing or where namespaces may not be made; in CI a skip is a failure."""
    missing = [program for program in ("unshare", "ip", *programs) if shutil.which(program) is None]
    if missing:
        return pytest.mark.skip(reason=f"not installed here: {', '.join(missing)}")
    allowed = subprocess.run([*_WITHOUT_NETWORK, "true"], capture_output=True, check=False).returncode == 0
    return pytest.mark.skipif(not allowed, reason="no namespaces may be made here (it takes root)")


def without_network(script: str, *arguments: str | Path, folder: Path, **environment: str) -> str:
    """What a shell script prints in there. `arguments` are its $1, $2, ..."""
    command = [*_WITHOUT_NETWORK, "sh", "-euc", f"ip link set lo up\n{script}", "sh", *map(str, arguments)]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def probed(before: str, *arguments: str | Path, specification: dict[str, Any], folder: Path, **env: str) -> Any:
    """What the probe saw in there, after the shell script `before`."""
    script = f'{before}\nexec "$PYTHON" "$PROBE" "$SPECIFICATION"'
    environment = {"PYTHON": sys.executable, "PROBE": str(PROBE), "SPECIFICATION": json.dumps(specification), **env}
    return json.loads(without_network(script, *arguments, folder=folder, **environment).splitlines()[-1])


def assert_served_without_network(found: Any) -> None:
    """It counted, it held and settled, and there was no way out."""
    assert found["unreachable"] == "ENETUNREACH"
    assert found["process"]["interfaces"] == ["lo"]
    assert found["process"]["routes"] == []
    assert found["calculate"]["token_count"] == 7
    assert found["calculate"]["accuracy"] == "exact"
    usage = found["chat"]["usage"]
    assert found["chat"]["choices"][0]["message"]["content"]
    used = next(row["used"] for row in found["budgets"]["data"] if row["unit"] == "tokens")
    assert used == usage["total_tokens"] > usage["prompt_tokens"] > 0
    assert found["metrics"]
    assert found["docs"]
    assert found["ended"] == 0
