"""Replaying past requests under several policies at once, each in a process of its own where they can be read twice."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from gateway.access_logs import STDIN, AccessLog
from policies.model import StoreLost
from policies.policy import Policy
from policies.replay import replayed
from policies.replay_findings import Findings
from policies.traffic import PAGE, Request, from_file
from tokenizers_offline.catalog import Catalog, Override
from tokenizers_offline.prompt import CountingError
from tokenizers_offline.store import TokenizerStore

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from gateway.settings import TokenizerSettings

Pages = AsyncIterator[Sequence[Request]]


@dataclass(frozen=True, slots=True)
class Past:
    """The requests of a time, in a file that any process can read: a SQLite ledger, or an access log."""

    path: Path
    is_log: bool
    since: float
    until: float | None = None

    def read_once(self) -> bool:
        """Whether it is gone once it has been read."""
        return self.path == STDIN or not self.path.is_file()

    def log(self) -> AccessLog:
        """Return the log that it is."""
        return AccessLog(self.path, since=self.since, until=self.until)

    def pages(self) -> Pages:
        """Yield its requests by the page."""
        if self.is_log:
            return pages_of(self.log())
        return from_file(self.path, since=self.since, until=self.until)


@dataclass(slots=True)
class ModelMost:
    """How much a model can write, from the catalog, looked up once a name. It can be sent to another process."""

    models_dir: Path
    overrides: Mapping[str, Override]
    _known: dict[str, int | None] = field(default_factory=dict)
    _catalog: Catalog | None = None

    @classmethod
    def of(cls, settings: TokenizerSettings) -> ModelMost:
        """Return it for a configuration's own models and the store of tokenizers."""
        overrides = {
            name: Override(each.like, each.encoding, each.layout, each.max_output_tokens)
            for name, each in settings.models.items()
        }
        return cls(settings.dir, overrides)

    def __reduce__(self) -> tuple[type[ModelMost], tuple[Path, Mapping[str, Override]]]:
        return ModelMost, (self.models_dir, self.overrides)

    def load(self) -> Catalog:
        """Read the catalog, once."""
        if self._catalog is None:
            self._catalog = Catalog.load(self.overrides, installed=TokenizerStore(self.models_dir).installed())
        return self._catalog

    def __call__(self, model: str) -> int | None:
        if model not in self._known:
            try:
                self._known[model] = self.load().resolve(model).max_output_tokens
            except CountingError:
                self._known[model] = None
        return self._known[model]


async def pages_of(log: AccessLog) -> Pages:
    """Yield the requests of a log by the page."""
    requests = iter(log)
    while page := await asyncio.to_thread(lambda: list(islice(requests, PAGE))):
        yield page


async def replay_each(
    pages: Pages,
    past: Past | None,
    policies: Mapping[str, Policy],
    *,
    model_max: ModelMost,
    told: Callable[[int], None] = lambda requests: None,
) -> dict[str, Findings]:
    """Replay `pages` under the first policy, and under the others too: each in a process of its own that reads `past`
    for itself, or here where there is none. Raises `StoreLost` and OSError."""
    gc.collect()
    gc.freeze()
    gc.disable()  # a replay makes many small things, none of which refers to itself
    others = list(policies)[1:]
    helping: dict[str, _Helper] = {}
    try:
        if past is not None and not await asyncio.to_thread(past.read_once):
            for name in others:
                helping[name] = await asyncio.to_thread(_Helper, past, policies[name], model_max)
        here = {name: policy for name, policy in policies.items() if name not in helping}
        await asyncio.to_thread(model_max.load)
        found = await replayed(pages, here, model_max=model_max, told=told)
        for name, helper in helping.items():
            found[name] = await asyncio.to_thread(helper.findings)
        return found
    finally:
        for helper in helping.values():
            await asyncio.to_thread(helper.end)
        gc.enable()
        gc.unfreeze()


def _read_only(mapping: dict[str, object]) -> MappingProxyType[str, object]:
    return MappingProxyType(mapping)


def _sent(mapping: MappingProxyType[str, object]) -> tuple[Callable[..., object], tuple[object, ...]]:
    return _read_only, (dict(mapping),)


class _Helper:
    """A process that replays one policy and tells what it found."""

    def __init__(self, past: Past, policy: Policy, model_max: ModelMost) -> None:
        # Only where a second process is wanted: small replays are over before these are imported.
        import multiprocessing
        from multiprocessing.reduction import ForkingPickler

        ForkingPickler.register(MappingProxyType, _sent)  # tags of keys and matches, on their way to a helper
        starting = multiprocessing.get_context("spawn")
        self._answer, sends = starting.Pipe(duplex=False)
        self._process = starting.Process(target=_help, args=(sends, past, policy, model_max), daemon=True)
        self._process.start()
        sends.close()

    def findings(self) -> Findings:
        try:
            answer = self._answer.recv()
        except EOFError:
            raise OSError(0, "the process that replayed the other configuration has died") from None
        if isinstance(answer, Findings):
            return answer
        assert isinstance(answer, Exception)
        raise answer

    def end(self) -> None:
        self._process.terminate()
        self._process.join()


def _help(sends: Connection, past: Past, policy: Policy, model_max: ModelMost) -> None:
    gc.disable()
    try:
        found = asyncio.run(replayed(past.pages(), {"": policy}, model_max=model_max))
        sends.send(found[""])
    except (OSError, StoreLost) as error:
        sends.send(error)
    except KeyboardInterrupt:  # meant for the command, which ends this process
        pass
    sends.close()
