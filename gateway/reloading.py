"""Another configuration while the gateway runs: read, validated, and only then swapped in with one reference.

Each worker looks at the file by itself, so that all of them have the new one within a second and none asks another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from gateway.config.changes import Changes, applicable, changes_between
from gateway.config.problems import ConfigError, Problem
from policies.keyring import merged

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.runtime import Runtime, RuntimeHolder
    from gateway.settings import Settings, UpstreamSettings
    from gateway.upstream import Upstreams

LOOK_PERIOD_S = 0.25
"""How often the file is looked at. It is read when two looks in a row find the same change, so that a file half
written is left alone; together with reading it that stays within a second."""

Stamp = tuple[int, int, int, int]

_log = structlog.get_logger("config")


class Reloader:
    """Keeps a worker's runtime in step with its configuration file.

    `problems` are what is wrong with the file as it stands; while there are any, what was configured before stays in
    force, as do usage, holds and keys made at run time whatever the file says.
    """

    def __init__(
        self,
        holder: RuntimeHolder,
        *,
        file: Path,
        load: Callable[[], Settings],
        open_upstreams: Callable[[Sequence[UpstreamSettings]], Upstreams],
    ) -> None:
        self.problems: tuple[Problem, ...] = ()
        self._holder = holder
        self._file = file
        self._load = load
        self._open_upstreams = open_upstreams
        self._seen: Stamp | None = None
        self._settling: Stamp | None = None
        self._one_at_a_time = asyncio.Lock()

    async def look(self) -> None:
        """Reload if the file is another than the one last read, and has come to rest."""
        stamp = await asyncio.to_thread(_stamp, self._file)
        if stamp == self._seen or stamp != self._settling:
            self._settling = stamp
        else:
            await self.try_reload("file changed")

    async def try_reload(self, why: str) -> None:
        """Reload; what is wrong is already logged, counted and kept in `problems`."""
        try:
            await self.reload(why)
        except ConfigError:
            return

    async def reload(self, why: str) -> Changes:
        """Read the file now and put it in force. Raises `ConfigError`, and then nothing has changed."""
        async with self._one_at_a_time:
            stamp = await asyncio.to_thread(_stamp, self._file)
            try:
                read = await asyncio.to_thread(self._load)
                upstreams = self._open_upstreams(read.upstreams)
            except ConfigError as error:
                self._refuse(error.problems, why)
                raise
            except ValueError as error:  # nothing of a file may stop the gateway that runs
                problem = Problem(str(self._file), str(error), "change the file")
                self._refuse((problem,), why)
                raise ConfigError((problem,)) from None
            finally:
                self._seen = self._settling = stamp
            return self._swap(read, upstreams, why)

    def _swap(self, read: Settings, upstreams: Upstreams, why: str) -> Changes:
        # Nothing here waits, so no request and no other swap comes in between.
        runtime = self._holder.current
        was_refused = bool(self.problems)
        self.problems = ()
        changes = changes_between(runtime.settings, read)
        if changes.applied or read.version != runtime.settings.version:  # a comment makes another version too
            self._holder.current = configured(runtime, applicable(runtime.settings, read), upstreams)
        if read.webhook != runtime.settings.webhook:
            runtime.notices.webhook.aim(read.webhook)
        runtime.metrics.tell_config(read.version, at=runtime.clock())
        if changes.applied or was_refused:
            runtime.metrics.config_reloads.inc()
            _log.info(
                "config_reloaded",
                why=why,
                file=str(self._file),
                version=read.version,
                before=runtime.settings.version,
                changes=list(changes.applied),
            )
        if changes.needs_restart:
            _log.warning("config_needs_restart", file=str(self._file), changes=list(changes.needs_restart))
        return changes

    def _refuse(self, problems: tuple[Problem, ...], why: str) -> None:
        self.problems = problems
        runtime = self._holder.current
        runtime.metrics.config_failures.inc()
        runtime.metrics.config_usable.set(0)
        _log.error(
            "config_reload_failed",
            why=why,
            file=str(self._file),
            version=runtime.settings.version,
            problems=[str(problem) for problem in problems],
            in_force="the configuration from before",
        )


def configured(runtime: Runtime, settings: Settings, upstreams: Upstreams) -> Runtime:
    """Return a runtime under other settings. Requests that run keep the one they began with, and end on the same
    store and connections."""
    policy = replace(settings.policy, keys=merged(settings.policy.keys, runtime.kept.values()))
    return replace(
        runtime,
        settings=settings,
        policy=policy,
        engine=runtime.engine.with_policy(policy),
        upstreams=runtime.upstreams if settings.upstreams == runtime.settings.upstreams else upstreams,
    )


async def follow(reloader: Reloader) -> None:
    """Look for ever."""
    while True:
        await asyncio.sleep(LOOK_PERIOD_S)
        try:
            await reloader.look()
        except Exception:  # a gateway must outlive whatever its file is made to be
            _log.exception("config_follow_failed")


def _stamp(file: Path) -> Stamp | None:
    """What tells one state of a file from another (also behind a link, as Kubernetes swaps them); None without it."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
