"""What can be served and is likely not what was meant: budgets for nobody, limits out of reach, missing tokenizers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from gateway.callers import ANONYMOUS
from gateway.config.document import Route, read_document
from gateway.config.problems import Problem
from gateway.settings import Settings, UpstreamSettings
from policies.matching import PolicyIndex
from policies.model import Budget, Key, Limit, Match, Period, Subject
from policies.policy import Policy
from tokenizers_offline.carried import open_tokenizers
from tokenizers_offline.catalog import Catalog, Override
from tokenizers_offline.prompt import CountingError

SMALLEST_PROMPT = 8
"""Tokens of one short word as a chat message: the least that a request usually has."""

_SECONDS: Mapping[Period, float] = {
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
    "month": 31 * 86_400,
    "year": 366 * 86_400,
    "total": float("inf"),
}
_PART_OF = {
    "tokens": ("tokens",),
    "input_tokens": ("tokens", "input_tokens"),
    "output_tokens": ("tokens", "output_tokens"),
}

_PLACEHOLDER = re.compile(r"(?:Bearer |Basic )?(\$[A-Za-z_]\w*|\$\([^)]*\)|{{[^}]*}}|%[A-Z_]+%|<[A-Za-z][\w -]*>)")
"""How shells, templates and handbooks write what is to be put in."""

Place = Callable[[Route], str]


def advise(path: Path, settings: Settings, *, env: Mapping[str, str]) -> tuple[Problem, ...]:
    """Return warnings on a configuration that was loaded from `path`, in the file's order of sections."""
    place = read_document(path, env=env).place
    policy = settings.policy
    return (
        *_tls_files(settings, place),
        *_tokenizers(settings, place),
        *_unexpanded(settings, place),
        *_versions_twice(settings.upstreams, place),
        *_upstreams(settings.upstreams, place),
        *_uncovered_keys(policy, place),
        *_budgets_for_nobody(settings, place),
        *_unreachable_limits(policy.budgets, place),
        *_small_limits(policy, place),
    )


def _tls_files(settings: Settings, place: Place) -> Iterator[Problem]:
    tls = settings.server.tls
    for field, file in (("cert", tls.cert), ("key", tls.key)) if tls is not None else ():
        if not file.is_file():
            yield Problem(
                place(("server", "tls", field)),
                f"there is no file `{file}`: a gateway on this machine would not start",
                "put it there, or name another",
            )


def _unexpanded(settings: Settings, place: Place) -> Iterator[Problem]:
    """Secrets that are another tool's placeholders, and would be sent as they stand."""
    found: list[tuple[Route, str | None]] = []
    for index, upstream in enumerate(settings.upstreams):
        found.append((("upstreams", index, "api_key"), upstream.api_key))
        found += [(("upstreams", index, "headers", name), text) for name, text in upstream.headers.items()]
    found += [(("keys", index, "upstream_key"), key.upstream_key) for index, key in enumerate(settings.policy.keys)]
    if settings.webhook is not None:
        found.append((("webhook", "secret"), settings.webhook.secret))
    for route, text in found:
        if text and (placeholder := _PLACEHOLDER.fullmatch(text)):  # else a part of a real one might be shown
            name = re.sub(r"env\.|Values\.|\W", "", placeholder[1]) or "NAME"
            yield Problem(
                place(route),
                f"`{route[-1]}` holds `{placeholder[1]}`, which is sent as it stands",
                f"write `${{{name}}}` to take it from the environment",
            )


def _versions_twice(upstreams: Sequence[UpstreamSettings], place: Place) -> Iterator[Problem]:
    for index, upstream in enumerate(upstreams):
        version = re.search(r"/v1(?:beta)?$", upstream.url)
        if version is not None and not upstream.prefix:
            yield Problem(
                place(("upstreams", index, "url")),
                f"paths are appended whole: {version[0]}/... asked for here is {version[0] * 2}/... there",
                f"write `{upstream.url.removesuffix(version[0])}`",
            )


def _tokenizers(settings: Settings, place: Place) -> Iterator[Problem]:
    section = settings.tokenizers
    installed = set(open_tokenizers(section.dir).installed())
    if not installed:
        yield Problem(
            place(("tokenizers", "dir")),
            f"no tokenizer is installed in `{section.dir}`: every request to a model would be answered 503",
            "run `tollgate tokenizers fetch`",
        )
        return
    for position, name in enumerate(section.preload):
        if name not in installed:
            yield _missing(place(("tokenizers", "preload", position)), f"`{name}`", name)
    overrides = {
        name: Override(each.like, each.encoding, each.layout, each.max_output_tokens)
        for name, each in section.models.items()
    }
    catalog = Catalog.load(overrides, installed=installed)
    named: list[tuple[Route, str]] = [(("tokenizers", "models", name), name) for name in section.models]
    for index, upstream in enumerate(settings.upstreams):
        named += [
            (("upstreams", index, "models", position), name)
            for position, name in enumerate(upstream.models)
            if not _is_pattern(name) and name not in upstream.deployments
        ]
        named += [(("upstreams", index, "deployments", name), model) for name, model in upstream.deployments.items()]
    for route, name in named:
        try:
            spec = catalog.resolve(name)
        except CountingError as error:
            if section.unknown_model == "refuse":
                yield Problem(
                    place(route), f"`{name}` cannot be counted: {error}", "say what it is in `tokenizers.models`"
                )
            continue
        if spec.encoding not in installed:
            yield _missing(place(route), f"`{name}` is counted with `{spec.encoding}`, which", spec.encoding)


def _missing(place: str, what: str, name: str) -> Problem:
    return Problem(place, f"{what} is not installed", f"run `tollgate tokenizers fetch {name}`")


def _upstreams(upstreams: Sequence[UpstreamSettings], place: Place) -> Iterator[Problem]:
    for index, upstream in enumerate(upstreams):
        earlier = [each for each in upstreams[:index] if _goes_first(each, upstream)]
        asked_for = (*upstream.models, *upstream.deployments)
        taken = {
            pattern: first.name
            for pattern in asked_for
            for first in reversed(earlier)
            if any(fnmatchcase(pattern, each) for each in first.models)
        }
        if len(taken) == len(set(asked_for)):
            first_names = ", ".join(f"`{name}`" for name in dict.fromkeys(taken.values()))
            yield Problem(
                place(("upstreams", index, "name")),
                f"upstream `{upstream.name}` gets no request: {first_names} above takes all it would serve",
                "move it up, give it a `prefix`, or narrow the other's `models`",
            )
            continue
        for position, pattern in enumerate(upstream.models):
            if pattern in taken:
                yield Problem(
                    place(("upstreams", index, "models", position)),
                    f"`{pattern}` never comes to upstream `{upstream.name}`: `{taken[pattern]}` above takes it",
                    "remove it, or move this upstream up",
                )


def _goes_first(first: UpstreamSettings, second: UpstreamSettings) -> bool:
    """Whether every request of a model both take, that may go to `second`, is offered to `first` before."""
    if first.formats and not (second.formats and set(second.formats) <= set(first.formats)):
        return False
    if not first.prefix and not second.prefix:
        return True
    return bool(first.prefix and second.prefix and f"{second.prefix}/".startswith(f"{first.prefix}/"))


def _uncovered_keys(policy: Policy, place: Place) -> Iterator[Problem]:
    enforced = [budget for budget in policy.budgets if budget.mode == "enforce" and budget.limits]
    if not enforced:
        yield Problem(
            place(("budgets",)), "no budget limits anybody", "add one with `limits`, in `mode: enforce` (the default)"
        )
        return
    for index, key in enumerate(policy.keys):
        if not any(_is_for(budget, key) for budget in enforced):
            yield Problem(
                place(("keys", index, "id")),
                f"no budget limits the key `{key.id}`: it may spend without end",
                "widen a budget's `match`, or add a budget for it",
            )


def _budgets_for_nobody(settings: Settings, place: Place) -> Iterator[Problem]:
    policy = settings.policy
    keys = policy.keys or (ANONYMOUS,)
    upstreams = [upstream.name for upstream in settings.upstreams]
    for index, budget in enumerate(policy.budgets):
        match = budget.match
        if not any(_is_for(budget, key) for key in keys):
            wanted = [*(["key"] if match.key else []), *match.tags]
            yield Problem(
                place(("budgets", index, "match")),
                f"budget `{budget.name}` is for nobody: no key of this file has such a {' and '.join(wanted)}",
                "change its `match`, or ignore this if keys made with `tollgate keys create` have it",
            )
        elif match.upstream and not any(_fits(Match(upstream=match.upstream), upstream=name) for name in upstreams):
            yield Problem(
                place(("budgets", index, "match", "upstream")),
                f"budget `{budget.name}` is for nobody: no upstream has such a name",
                "write one of " + ", ".join(f"`{name}`" for name in upstreams),
            )
        elif match.model and not any(_may_be_served(pattern, settings.upstreams) for pattern in match.model):
            yield Problem(
                place(("budgets", index, "match", "model")),
                f"budget `{budget.name}` is for nobody: no upstream serves such a model",
                "change its `match`, or the `models` of an upstream",
            )


def _unreachable_limits(budgets: Sequence[Budget], place: Place) -> Iterator[Problem]:
    for index, budget in enumerate(budgets):
        if budget.mode != "enforce":
            continue
        for position, limit in enumerate(budget.limits):
            for other in budget.limits:
                if other is limit or other.unit not in _PART_OF.get(limit.unit, (limit.unit,)):
                    continue
                most = other.amount * _windows_met(limit, other)
                if most < limit.amount:
                    yield Problem(
                        place(("budgets", index, "limits", position)),
                        f"{_named(limit)} are never reached: {_named(other)} end before, at {most:,.0f} at most",
                        "lower it, raise the other, or remove it",
                    )
                    break


def _windows_met(limit: Limit, other: Limit) -> float:
    """How many windows of `other` one window of `limit` can take from."""
    if limit.unit == "concurrent":
        return float("inf")
    length, other_length = _SECONDS[limit.per], _SECONDS[other.per]
    if length == other_length == float("inf") or other.per == "total":
        return 1
    if length == float("inf"):
        return length
    # Calendar windows lie one inside the other, but for weeks, which months and years cut.
    nested = not limit.sliding and not other.sliding and not (other.per in ("month", "year") and limit.per == "week")
    if length <= other_length:
        return 1 if nested or (limit.sliding and limit.per == other.per) else 2
    return -(-length // other_length) + (0 if nested and other.per != "week" else 1)


def _small_limits(policy: Policy, place: Place) -> Iterator[Problem]:
    for index, budget in enumerate(policy.budgets):
        rule = budget.output_hold if budget.output_hold is not None else policy.output_hold
        weights = budget.weights
        if weights.models or (weights.input, weights.output) != (1.0, 1.0):
            continue  # what a request costs there depends on its model
        for position, limit in enumerate(budget.limits):
            reads = SMALLEST_PROMPT if limit.unit in ("tokens", "input_tokens") else 0
            writes = 0
            if limit.unit in ("tokens", "output_tokens"):
                writes = rule if isinstance(rule, int) else 1
            needs = reads + writes if limit.unit.endswith("tokens") else 1
            route: Route = ("budgets", index, "limits", position)
            if limit.amount < needs:
                held = f", of which {writes:,} are held for the answer" if writes > 1 else ""
                yield Problem(
                    place(route),
                    f"{_named(limit)} are less than one request needs ({needs:,} at least{held}): all are refused",
                    "raise it" + (", or lower `output_hold`" if writes > 1 else ""),
                )
                continue
            for field, most, units in (
                ("max_input_tokens", budget.max_input_tokens, ("tokens", "input_tokens")),
                ("max_output_tokens", budget.max_output_tokens, ("tokens", "output_tokens")),
            ):
                if most is not None and limit.unit in units and most > limit.amount:
                    yield Problem(
                        place(("budgets", index, field)),
                        f"`{field}: {most}` lets through what {_named(limit)} never fit",
                        f"lower `{field}`, or raise the limit",
                    )


def _named(limit: Limit) -> str:
    unit = limit.unit.replace("_", " ")
    if limit.unit == "concurrent":
        return f"{limit.amount:,} concurrent requests"
    return f"{limit.amount:,} {unit} per {'sliding ' if limit.sliding else ''}{limit.per}"


def _is_for(budget: Budget, key: Key) -> bool:
    return _fits(Match(key=budget.match.key, tags=budget.match.tags), key=key)


def _fits(match: Match, *, key: Key = ANONYMOUS, upstream: str = "", model: str = "") -> bool:
    subject = Subject(key.id, key.tags, model, upstream)
    return bool(PolicyIndex(Policy(budgets=(Budget("asked", match=match),))).plan(subject).stands)


def _may_be_served(pattern: str, upstreams: Sequence[UpstreamSettings]) -> bool:
    """Whether some model may fit the pattern and go to an upstream; where two patterns meet, the doubt is its good."""
    served = [name for each in upstreams for name in (*each.models, *each.deployments.values())]
    if "/" not in pattern:  # it also fits the name after a vendor's prefix
        served += [name.rpartition("/")[2] for name in served]
    return any(_may_overlap(pattern.lower(), name.lower()) for name in served)


def _may_overlap(first: str, second: str) -> bool:
    if not _is_pattern(first) and not _is_pattern(second):
        return first == second
    head, other_head = _literal_head(first), _literal_head(second)
    return head.startswith(other_head) or other_head.startswith(head)


def _literal_head(pattern: str) -> str:
    return pattern[: next((index for index, sign in enumerate(pattern) if sign in "*?["), len(pattern))]


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")
