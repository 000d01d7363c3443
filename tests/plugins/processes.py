"""Programs started on a free port, waited for, and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

STARTING_S = 240.0
"""LiteLLM's proxy imports for ten seconds on a machine that does nothing else."""
ENDING_S = 10.0


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(
    command: Sequence[str], *, port: int, folder: Path, environment: dict[str, str] | None = None
) -> AsyncIterator[None]:
    """A program that listens on `port`, until the context ends. What it prints is kept in `folder`."""
    log = folder / f"{Path(command[0]).name}.log"
    out = await asyncio.to_thread(log.open, "wb")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=out, stderr=out, cwd=folder, env=os.environ | (environment or {}), start_new_session=True
    )
    try:
        try:
            await asyncio.wait_for(_listening(port, process), STARTING_S)
        except TimeoutError:
            said = await asyncio.to_thread(log.read_text)
            raise RuntimeError(f"{command[0]} does not listen:\n{said[-800:]}") from None
        yield
    finally:
        out.close()
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), ENDING_S)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    while True:
        if process.returncode is not None:
            raise TimeoutError
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
