"""Windows, as far as it can be tried without one: make.ps1 is parsed and held against the Makefile, and the gateway
runs without what Windows' Python lacks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.conftest import KEY, config_for
from tests.plugins.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("windows_alike.py")
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
POWERSHELL = (ROOT / "make.ps1").read_text(encoding="utf-8")


async def run(*arguments: str, folder: Path) -> tuple[int | None, str]:
    process = await start(*arguments, folder=folder)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


async def start(*arguments: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), *arguments),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


def write_config(folder: Path) -> Path:
    path = folder / "config.yaml"
    config = config_for(store={"url": "sqlite:///budgets.db"}, server={"host": "127.0.0.1", "workers": "auto"})
    path.write_text(yaml.safe_dump(config))
    return path


async def test_every_module_is_imported_without_what_windows_lacks(tmp_path: Path) -> None:
    code, out = await run("import", folder=tmp_path)
    assert code == 0, out
    assert len(out.splitlines()) > 200


async def test_a_gateway_serves_and_stops_without_what_windows_lacks(tmp_path: Path) -> None:
    config = await asyncio.to_thread(write_config, tmp_path)
    port = free_port()
    process = await start("serve", "--config", str(config), "--port", str(port), folder=tmp_path)
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(60):
        while b"listening" not in said:
            line = await process.stdout.readline()
            assert line, said.decode()
            said += line
    url = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as client:
        async with client.post(url + "/v1/chat/completions", json=CHAT) as answer:
            assert answer.status == 200, await answer.text()
        async with client.get(url + "/budgets") as answer:
            (budget,) = (await answer.json())["data"]
            assert (budget["used"] > 8, budget["held"]) == (True, 0)
    process.send_signal(signal.SIGINT)  # Ctrl-C
    rest, _ = await asyncio.wait_for(process.communicate(), 30)
    said += rest
    assert process.returncode == 0, said.decode()
    assert b"draining" in said
    assert b"stopped" in said
    assert b"Traceback" not in said


async def test_several_workers_are_refused_where_nothing_forks(tmp_path: Path) -> None:
    config = await asyncio.to_thread(write_config, tmp_path)
    code, out = await run("serve", "--config", str(config), "--workers", "2", folder=tmp_path)
    assert (code, out.count("\n")) == (1, 1)
    assert "server.workers is 2" in out
    assert "auto" in out


async def test_replay_runs_where_memory_is_not_told(tmp_path: Path) -> None:
    config = await asyncio.to_thread(write_config, tmp_path)
    code, out = await run("replay", "--config", str(config), "--json", folder=tmp_path)
    assert code == 0, out
    assert '"peak_mib": null' in out


def test_make_ps1_parses() -> None:
    parser_of = pytest.importorskip("tree_sitter")
    language = pytest.importorskip("tree_sitter_powershell")
    parser = parser_of.Parser(parser_of.Language(language.language()))
    tree = parser.parse(POWERSHELL.encode())
    assert not tree.root_node.has_error, str(tree.root_node)
    broken = parser.parse(POWERSHELL.replace("}", "", 1).encode())
    assert broken.root_node.has_error  # the parser sees mistakes


def test_make_ps1_does_what_the_makefile_does() -> None:
    targets = set(re.findall(r"^        '([a-z]+)' \{", POWERSHELL, re.MULTILINE))
    assert targets >= {"help", "setup", "run", "test"}
    assert targets <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    for shared in (".venv", ".installed", ".fetched", "'.[dev]'", "encodings.yaml", "tokenizers fetch", "serve", "-n"):
        assert shared in POWERSHELL, shared
        assert shared in MAKEFILE, shared


def test_make_ps1_is_ascii_as_old_powershells_read_it() -> None:
    assert POWERSHELL.isascii()
