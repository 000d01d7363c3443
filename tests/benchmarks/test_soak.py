"""A short soak: the real gateway in a process of its own, everything at once, and nothing left behind."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

import pytest

from benchmarks.proxy.targets import free_port, gateway
from benchmarks.proxy.upstream import serve
from benchmarks.soak import soak


@pytest.mark.timeout(240)  # idle upstream connections are closed after a minute, and waited for
def test_mixed_load_meets_no_error_and_leaves_no_hold_and_no_connection(tmp_path: Path) -> None:
    port = free_port()
    upstream = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    upstream.start()
    target = gateway(tmp_path, port)
    target.start(tmp_path)
    try:
        found = asyncio.run(soak(target, minutes=0.1, told=lambda line: None, warm_up=10))
    finally:
        target.stop()
        upstream.terminate()
    assert not found.errors
    assert {status.rpartition(" ")[2] for status in found.statuses} == {"200", "401"}
    assert (found.held_left, found.sockets_left) == (0, 0)
