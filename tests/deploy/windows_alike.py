"""Tollgate's command line as if on Windows: run as a script, with the command line's own arguments.

What Windows' Python has not is taken away before Tollgate is imported: modules, signals, functions of `os`, and what
event loops cannot do there. Paths, sockets and libraries stay this machine's. ``import`` as the only argument imports
every module instead.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import Any

THIRD_PARTY = (
    *("aiohttp.web", "click", "fastokens", "httptools", "jinja2.sandbox", "orjson", "prometheus_client", "pydantic"),
    *("redis.asyncio", "redis.asyncio.cluster", "rich.console", "rich.progress", "rich.table", "splintr", "structlog"),
    *("swagger_ui_bundle", "tokenizers", "yaml", "huggingface_hub", "zoneinfo", "ssl", "multiprocessing", "subprocess"),
)
"""Libraries have their own ways on Windows: they are loaded as they are here."""
MODULES = ("fcntl", "grp", "gunicorn", "pwd", "resource", "termios", "tty", "uvloop", "syslog", "posix", "pty")
SIGNALS = (
    *("SIGHUP", "SIGQUIT", "SIGKILL", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGSTOP", "SIGCONT"),
    *("pthread_sigmask", "SIG_BLOCK", "SIG_UNBLOCK", "setitimer", "pthread_kill"),
)
FUNCTIONS = (
    *("fork", "getuid", "geteuid", "getgid", "getegid", "register_at_fork", "sched_getaffinity", "fchown", "chown"),
    *("getpgid", "killpg", "setsid", "uname", "nice", "getloadavg", "mkfifo", "sysconf", "statvfs", "posix_fadvise"),
)
NOT_THERE = {"gateway.workers"}
"""Imported only where processes fork."""


def _not_on_windows(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


def become_windows() -> None:
    """Take away what Windows has not."""
    for name in THIRD_PARTY:
        importlib.import_module(name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it fails then
    for place, names in ((signal, SIGNALS), (os, FUNCTIONS)):
        for name in names:
            if hasattr(place, name):
                delattr(place, name)
    loop: Any = asyncio.SelectorEventLoop
    for name in ("add_signal_handler", "remove_signal_handler", "add_reader", "add_writer", "create_unix_connection"):
        setattr(loop, name, _not_on_windows)
    sys.platform = "win32"


def import_everything() -> None:
    """Import every module of the three packages."""
    for package in ("gateway", "policies", "tokenizers_offline"):
        folder = str(Path(importlib.import_module(package).__file__ or "").parent)
        for module in pkgutil.walk_packages([folder], f"{package}."):
            if module.name not in NOT_THERE and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
                print(module.name)


if __name__ == "__main__":
    become_windows()
    if sys.argv[1:] == ["import"]:
        import_everything()
    else:
        from gateway.cli import main

        main()
