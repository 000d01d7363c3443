"""Which budgets a request falls under, worked out once for each (key, model, upstream) and kept."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from urllib.parse import quote

import orjson

from policies.model import MICRO, Budget, Key, Limit, OutputHold, Rates, Subject, Unit
from policies.policy import Policy
from policies.stores.base import Counter
from policies.windows import Calendar, oldest_slot, slot, slot_leaves_at, slot_width_s

LATE_SETTLES_S = 86_400.0
"""How long a counter outlives its window, so that a long answer is still settled where it was held."""

PLANS_KEPT = 20_000


class Line:
    """One limit of one budget for one scope. `series` names its counter and never the limit's amount; `named` and
    `kept` are what a `BudgetStatus` of it begins and ends with."""

    __slots__ = ("budget", "ceiling", "kept", "limit", "named", "rates", "scope", "series", "warn_at")

    def __init__(self, budget: Budget, limit: Limit, scope: str, rates: Rates) -> None:
        self.budget = budget
        self.limit = limit
        self.scope = scope
        self.rates = rates
        self.ceiling = limit.amount if budget.mode == "enforce" else -1
        self.series = series(budget.name, scope, limit)
        self.named = (budget.name, scope, limit.unit, limit.per, limit.amount)
        self.kept = (budget.mode, limit.sliding, 0)
        self.warn_at = tuple(sorted((-(-limit.amount * fraction // 1), fraction) for fraction in budget.warn_at))


class Stand:
    """One budget as it meets a request: its scope, whether it allows the model, its output hold, and whether it cuts
    answers that outgrow theirs."""

    __slots__ = ("allows", "budget", "cuts", "enforced", "output_hold", "scope")

    def __init__(self, budget: Budget, scope: str, *, allows: bool, output_hold: OutputHold, cuts: bool) -> None:
        self.budget = budget
        self.scope = scope
        self.allows = allows
        self.output_hold = output_hold
        self.enforced = budget.mode == "enforce"
        self.cuts = cuts and self.enforced


class Plan:
    """What a request of one subject meets: every budget that matches, and a line for each of their limits.

    `cutting` is the part of it that more output must be held on before an answer may outgrow its hold.
    """

    __slots__ = ("_counters", "_from", "_resets", "_until", "cutting", "lines", "memo", "shadows", "stands", "warns")

    def __init__(
        self, stands: Sequence[Stand], lines: Sequence[Line], memo: bytes, *, cutting: Plan | None = None
    ) -> None:
        self.cutting = cutting
        self.stands = tuple(stands)
        self.lines = tuple(lines)
        self.memo = memo
        self.shadows = any(line.ceiling < 0 for line in lines)
        self.warns = any(line.warn_at for line in lines)
        self._counters: tuple[Counter, ...] = ()
        self._resets: tuple[float | None, ...] = ()
        self._from = self._until = 0.0

    def counters(self, calendar: Calendar, now: float) -> tuple[Counter, ...]:
        """Return where each line counts at `now`."""
        if not self._from <= now < self._until:
            self._turn(calendar, now)
        return self._counters

    def resets(self, calendar: Calendar, now: float) -> tuple[float | None, ...]:
        """Return when each line's window is empty again if nothing more is charged; None: never by itself."""
        if not self._from <= now < self._until:
            self._turn(calendar, now)
        return self._resets

    def _turn(self, calendar: Calendar, now: float) -> None:
        starts, ends, counters = [0.0], [float("inf")], []
        resets: list[float | None] = []
        for line in self.lines:
            limit = line.limit
            if limit.unit == "concurrent" or limit.per == "total":
                counters.append(Counter(line.series, 0, 0, 0, 0.0))
                resets.append(None)
            elif limit.sliding:
                start, width = slot(limit.per, now), slot_width_s(limit.per)
                gone = float(slot_leaves_at(limit.per, start))
                counters.append(Counter(line.series, start, oldest_slot(limit.per, now), width, gone + LATE_SETTLES_S))
                resets.append(gone)
                starts.append(start)
                ends.append(start + width)
            else:
                span = calendar.window(limit.per, now)
                end = span.end if span.end is not None else float("inf")
                counters.append(Counter(line.series, int(span.start), int(span.start), 0, end + LATE_SETTLES_S))
                resets.append(end)
                starts.append(span.start)
                ends.append(end)
        self._counters, self._resets = tuple(counters), tuple(resets)
        self._from, self._until = max(starts), min(ends)


class PolicyIndex:
    """A policy made ready to be asked: patterns compiled, budgets for single keys found by the key."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.calendar = Calendar(policy.time_zone)
        self._budgets = [_Compiled(budget) for budget in policy.budgets]
        self._for_all: list[int] = []
        self._by_key: dict[str, list[int]] = {}
        for index, budget in enumerate(policy.budgets):
            if budget.match.key and not any(_is_pattern(key) for key in budget.match.key):
                for key in set(budget.match.key):
                    self._by_key.setdefault(key, []).append(index)
            else:
                self._for_all.append(index)
        self._tags = {key.id: key.tags for key in policy.keys}
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._lines: dict[tuple[int, str, Rates], list[Line]] = {}
        """By budget, scope and rates: plans share them."""

    def plan(self, subject: Subject) -> Plan:
        """Return what meets a subject."""
        tags = subject.tags
        known = self._tags.get(subject.key_id)
        kept_as: tuple[object, ...]
        if known is tags or known == tags:
            kept_as = (subject.key_id, subject.model, subject.upstream)
        else:
            kept_as = (subject.key_id, subject.model, subject.upstream, tuple(sorted(tags.items())))
        plan = self._plans.get(kept_as)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
                self._lines.clear()
            plan = self._plans[kept_as] = self._drawn(subject)
        return plan

    def plan_of_key(self, key: Key) -> Plan:
        """Return every budget a key can meet, whatever it asks for."""
        subject = Subject(key.id, key.tags, "", "")
        lines = []
        for index in self._candidates(key.id):
            compiled = self._budgets[index]
            if compiled.matches_caller(key.id, key.tags) and compiled.budget.each not in ("model", "upstream"):
                scope = _scope(compiled.budget.each, subject)
                lines += [Line(compiled.budget, limit, scope, Rates()) for limit in compiled.budget.limits]
        return Plan((), lines, b"")

    def line(self, budget: str, scope: str, unit: Unit) -> list[Line]:
        """Return the lines of a named budget for a scope, in one unit. Raises KeyError for no such budget."""
        found = [compiled.budget for compiled in self._budgets if compiled.budget.name == budget]
        if not found:
            raise KeyError(budget)
        return [Line(found[0], limit, scope, Rates()) for limit in found[0].limits if limit.unit == unit]

    def _candidates(self, key_id: str) -> list[int]:
        own = self._by_key.get(key_id)
        return self._for_all if own is None else sorted(self._for_all + own)

    def _drawn(self, subject: Subject) -> Plan:
        stands: list[Stand] = []
        lines: list[Line] = []
        for index in self._candidates(subject.key_id):
            compiled = self._budgets[index]
            if not compiled.matches(subject):
                continue
            budget = compiled.budget
            scope = _scope(budget.each, subject)
            hold = budget.output_hold if budget.output_hold is not None else self.policy.output_hold
            cuts = (budget.on_exhausted or self.policy.on_exhausted) == "cut"
            stands.append(Stand(budget, scope, allows=compiled.allows(subject.model), output_hold=hold, cuts=cuts))
            rates = compiled.rates(subject.model)
            drawn = self._lines.get((index, scope, rates))
            if drawn is None:
                drawn = [Line(budget, limit, scope, rates) for limit in budget.limits]
                self._lines[index, scope, rates] = drawn
            lines += drawn
        return Plan(stands, lines, _memo(subject, lines), cutting=_cutting(subject, stands, lines))


class _Compiled:
    __slots__ = ("_allow", "_deny", "_key", "_model", "_tags", "_upstream", "budget")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._key = _globs(budget.match.key)
        self._model = _globs(budget.match.model, models=True)
        self._upstream = _globs(budget.match.upstream)
        self._tags = {tag: _globs(patterns) for tag, patterns in budget.match.tags.items()}
        self._allow = _globs(budget.allow_models, models=True)
        self._deny = _globs(budget.deny_models, models=True)

    def matches_caller(self, key_id: str, tags: Mapping[str, str]) -> bool:
        if self._key is not None and not self._key(key_id):
            return False
        return all(pattern is None or (tag in tags and pattern(tags[tag])) for tag, pattern in self._tags.items())

    def matches(self, subject: Subject) -> bool:
        if self._model is not None and not self._model(subject.model):
            return False
        if self._upstream is not None and not self._upstream(subject.upstream):
            return False
        return self.matches_caller(subject.key_id, subject.tags)

    def allows(self, model: str) -> bool:
        if self._deny is not None and self._deny(model):
            return False
        return self._allow is None or self._allow(model)

    def rates(self, model: str) -> Rates:
        weights = self.budget.weights
        factor = 1.0
        for pattern, candidate in weights.models:
            matches = _globs((pattern,), models=True)
            if matches is not None and matches(model):
                factor = candidate
                break
        kinds = (weights.input, weights.output, weights.cached, weights.reasoning)
        return Rates(*(round(kind * factor * MICRO) for kind in kinds))


def concerns(budget: Budget, *, tag: str = "", value: str = "", model: str = "") -> bool:
    """Whether a budget can meet requests with a tag's value, for a model, as far as they are given."""
    patterns = _globs(budget.match.tags.get(tag, ())) if tag else None
    models = _globs(budget.match.model, models=True) if model else None
    return (patterns is None or patterns(value)) and (models is None or models(model))


def series(budget: str, scope: str, limit: Limit) -> str:
    """Return the name of a limit's counters, without the amount, so that retuning it keeps what was used."""
    period = f"sliding-{limit.per}" if limit.sliding else limit.per
    if limit.unit == "concurrent":
        period = "now"
    return f"{series_prefix(budget, scope)}{limit.unit}|{period}"


def series_prefix(budget: str, scope: str = "") -> str:
    """Return what the series of a budget (and a scope, where given) begin with."""
    return f"{_quoted(budget)}|{_quoted(scope)}|" if scope else f"{_quoted(budget)}|"


def memo_subject(memo: bytes) -> tuple[Subject, list[tuple[Unit, Rates]]]:
    """Read back what a plan noted on its holds: the subject, and each line's unit and rates."""
    noted = orjson.loads(memo)
    subject = Subject(noted["key"], noted["tags"], noted["model"], noted["upstream"])
    return subject, [(unit, Rates(*rates)) for unit, rates in noted["lines"]]


def _memo(subject: Subject, lines: Sequence[Line]) -> bytes:
    noted = orjson.dumps(
        {
            "key": subject.key_id,
            "tags": dict(subject.tags),
            "model": subject.model,
            "upstream": subject.upstream,
            "lines": [[line.limit.unit, list(line.rates)] for line in lines],
        }
    )
    return bytes(memoryview(noted))  # a copy: what orjson returns keeps kilobytes of the room it was written in


def _cutting(subject: Subject, stands: Sequence[Stand], lines: Sequence[Line]) -> Plan | None:
    names = {stand.budget.name for stand in stands if stand.cuts}
    found = [
        line
        for line in lines
        if line.budget.name in names
        and line.limit.unit in ("tokens", "output_tokens")
        and max(line.rates.output, line.rates.reasoning)
    ]
    return Plan(stands, found, _memo(subject, found)) if found else None


def _scope(each: str, subject: Subject) -> str:
    match each:
        case "":
            return "all"
        case "key":
            return f"key={subject.key_id}"
        case "model":
            return f"model={subject.model}"
        case "upstream":
            return f"upstream={subject.upstream}"
        case tag:
            # Without the tag a caller would slip past the budget; those who lack it share one counter.
            return f"{tag}={subject.tags.get(tag, '')}"


@lru_cache(maxsize=1024)
def _quoted(name: str) -> str:
    return quote(name, safe=" =.:/+*-_~")


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _globs(patterns: Sequence[str], *, models: bool = False) -> Callable[[str], bool] | None:
    """Compile patterns into one question; None where there are none.

    Model patterns ignore case, and one without a slash also matches the name after a vendor's prefix, so that
    ``openai/GPT-4o`` falls under ``gpt-4o``.
    """
    if not patterns:
        return None
    if not models:
        plain = frozenset(pattern for pattern in patterns if not _is_pattern(pattern))
        regex = re.compile("|".join(fnmatch.translate(p) for p in patterns if _is_pattern(p)) or r"(?!)")
        return lambda text: text in plain or regex.match(text) is not None
    whole = re.compile("|".join(fnmatch.translate(pattern.lower()) for pattern in patterns))
    bare = re.compile("|".join(fnmatch.translate(p.lower()) for p in patterns if "/" not in p) or r"(?!)")
    return lambda model: (
        whole.match(model.lower()) is not None or bare.match(model.lower().rpartition("/")[2]) is not None
    )


__all__ = ["Line", "Plan", "PolicyIndex", "Stand", "concerns", "memo_subject", "series", "series_prefix"]
