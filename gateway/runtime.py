"""Everything one request needs, as one frozen object that a reload swaps whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from gateway.counting import Counting
    from gateway.load import Load
    from gateway.metrics import Metrics
    from gateway.notices import Notices
    from gateway.operator_notes import OperatorNotes
    from gateway.reloading import Reloader
    from gateway.settings import Settings
    from gateway.unfinished import Unfinished
    from gateway.upstream import Upstreams
    from gateway.watchdog import Watchdog
    from policies.engine import BudgetEngine
    from policies.keyring import KeptKey
    from policies.policy import Policy


@dataclass(frozen=True, slots=True)
class Runtime:
    """The gateway as configured now. `clock` is the only source of the time of day.

    `policy` is the configuration's with the `kept` keys of the store; `keys_known` says that those have been read.
    `reloader` is None where no file is followed.
    """

    settings: Settings
    policy: Policy
    engine: BudgetEngine
    unfinished: Unfinished
    counting: Counting
    upstreams: Upstreams
    watchdog: Watchdog
    metrics: Metrics
    clock: Callable[[], float]
    started_at: float
    notes: OperatorNotes
    notices: Notices
    load: Load
    kept: Mapping[str, KeptKey] = field(default_factory=dict)
    keys_known: bool = False
    reloader: Reloader | None = None


class RuntimeHolder:
    """The current runtime. A request takes `current` once and keeps to it."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: Runtime


RUNTIME = web.AppKey("runtime", RuntimeHolder)
"""Where an application keeps its runtime."""
