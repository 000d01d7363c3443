from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from gateway.owners import dead_owners, new_owner, place_of


def test_a_process_that_ended_is_dead_and_a_running_one_is_not() -> None:
    me = new_owner()
    machine = me.rsplit(":", 2)[0]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = f"{machine}:{ended.pid}:aa"
    running = f"{machine}:{os.getppid()}:bb"
    before_me = f"{machine}:{os.getpid()}:cc"
    elsewhere = f"elsewhere/pid:[1]:{ended.pid}:dd"
    assert dead_owners([me, gone, running, before_me, elsewhere, "", "odd"], me=me) == {gone, before_me}


def test_no_process_is_asked_where_that_is_a_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    me = new_owner()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(sys, "platform", "win32")
    assert dead_owners([f"{me.rsplit(':', 2)[0]}:{ended.pid}:aa"], me=me) == frozenset()


def test_two_owners_in_one_process_are_both_alive() -> None:
    one, other = new_owner(), new_owner()
    assert dead_owners([one, other], me=one) == frozenset()


def test_two_owners_never_share_a_name() -> None:
    assert new_owner() != new_owner()


def test_an_owner_tells_where_it_runs() -> None:
    assert place_of(new_owner()) == (socket.gethostname(), os.getpid())
    assert place_of("elsewhere/pid:[1]:77:dd") == ("elsewhere", 77)
    assert place_of("odd") == ("", 0)
