"""What no single field can know: names that must differ, names that must exist, settings that contradict.

These look at the raw values, so that they also speak up when some fields are wrong in themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.config.document import Document, Route
from gateway.config.problems import Problem, did_you_mean
from gateway.config.schema import UNITS

_MATCH_FIELDS = ("key", "model", "upstream")
_OVERHEAD_FIELDS = ("text", "tools")


def check_rules(document: Document) -> list[Problem]:
    """Find the mistakes that only show between fields."""
    return [
        *_duplicates(document, "keys", "id", "ids name counters and must differ", "rename one of them"),
        *_duplicates(document, "keys", "digest", "one key must have one owner", "give each its own key"),
        *_duplicates(document, "budgets", "name", "names make counters and must differ", "rename one of them"),
        *_duplicates(document, "upstreams", "name", "names are used by budgets and must differ", "rename one of them"),
        *_duplicates(document, "upstreams", "prefix", "only the first could ever be chosen", "change one of them"),
        *_limits(document),
        *_upstreams(document),
        *_formats(document),
        *_tags(document),
        *_store(document),
        *_tokenizers(document),
    ]


def _items(document: Document, section: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    found = document.data.get(section)
    for index, item in enumerate(found if isinstance(found, list) else ()):
        if isinstance(item, Mapping):
            yield index, item


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _duplicates(document: Document, section: str, field: str, why: str, remedy: str) -> Iterator[Problem]:
    seen: dict[str, Route] = {}
    for index, item in _items(document, section):
        value = item.get(field)
        if not value or not isinstance(value, str):
            continue
        route: Route = (section, index, field)
        if value in seen:
            shown = f"`{field}: {value}`" if field != "digest" else "the same digest"
            line = document.place(seen[value]).rsplit(":", 2)[-2]
            yield Problem(document.place(route), f"{shown} is used twice (first on line {line}): {why}", remedy)
        else:
            seen[value] = route


def _limits(document: Document) -> Iterator[Problem]:
    for index, budget in _items(document, "budgets"):
        limits = budget.get("limits")
        seen: set[tuple[str, str, bool]] = set()
        for position, limit in enumerate(limits if isinstance(limits, list) else ()):
            for unit in set(_mapping(limit)) & set(UNITS):
                kind = (unit, str(limit.get("per")), limit.get("sliding") is True)
                if kind in seen:
                    place = document.place(("budgets", index, "limits", position))
                    per = f" per {limit['per']}" if "per" in limit else ""
                    yield Problem(place, f"`{unit}`{per} is limited twice by this budget", "keep one of the limits")
                seen.add(kind)


def _upstreams(document: Document) -> Iterator[Problem]:
    if document.data.get("upstreams") == []:
        yield Problem(
            document.place(("upstreams",)), "`upstreams` is empty", 'write `upstreams: [{name: echo, url: "echo:"}]`'
        )
    for index, upstream in _items(document, "upstreams"):
        prefix = upstream.get("prefix")
        if isinstance(prefix, str) and prefix and not prefix.startswith("/"):
            place = document.place(("upstreams", index, "prefix"))
            yield Problem(place, f"`prefix: {prefix}` is no path", f"write `prefix: /{prefix}`")
        for pattern, value in _mapping(upstream.get("overheads")).items():
            for unknown in sorted(set(_mapping(value)) - set(_OVERHEAD_FIELDS)):
                place = document.place(("upstreams", index, "overheads", pattern, unknown), of_value=False)
                yield Problem(place, f"there is no overhead for `{unknown}`", did_you_mean(unknown, _OVERHEAD_FIELDS))


def _formats(document: Document) -> Iterator[Problem]:
    named = [
        (document.place(("upstreams", index, "formats", position)), name)
        for index, upstream in _items(document, "upstreams")
        if isinstance(upstream.get("formats"), list)
        for position, name in enumerate(upstream["formats"])
        if isinstance(name, str)
    ]
    if not named:
        return
    from gateway.formats import FORMATS  # late: most files name no format

    known = {each.name for each in FORMATS}
    for place, name in named:
        if name not in known:
            yield Problem(place, f"there is no format `{name}`", did_you_mean(name, known))


def _tags(document: Document) -> Iterator[Problem]:
    """A tag nobody carries is allowed (keys come and go), one that looks like a misspelt field is not."""
    carried = {tag for _, key in _items(document, "keys") for tag in _mapping(key.get("tags"))}
    for index, budget in _items(document, "budgets"):
        for tag in _mapping(budget.get("match")):
            if tag in carried or tag in _MATCH_FIELDS:
                continue
            if difflib.get_close_matches(tag, _MATCH_FIELDS, n=1, cutoff=0.7):
                place = document.place(("budgets", index, "match", tag), of_value=False)
                yield Problem(place, f"no key has a tag `{tag}`", did_you_mean(tag, (*_MATCH_FIELDS, *carried)))
        each = budget.get("each")
        if not isinstance(each, str) or each in ("", "key") or each in carried:
            continue
        if near := difflib.get_close_matches(each, ["key", *carried], n=1, cutoff=0.7):
            place = document.place(("budgets", index, "each"))
            yield Problem(place, f"no key has a tag `{each}`", f"did you mean `{near[0]}`?")


def _store(document: Document) -> Iterator[Problem]:
    store = _mapping(document.data.get("store"))
    workers = _mapping(document.data.get("server")).get("workers", 1)
    if str(store.get("url", "")).startswith("memory:") and str(workers) != "1":
        yield Problem(
            document.place(("store", "url")),
            "`memory:` keeps a budget of its own in each of several workers",
            "write `url: sqlite:///tollgate.db`, or `workers: 1`",
        )
    yield from _store_address(document, str(store.get("url", "")))
    if store.get("on_error") == "divide" and store.get("replicas") is None:
        yield Problem(
            document.place(("store", "on_error")),
            "`on_error: divide` does not know by how many",
            "add `replicas: 3` (how many gateways share the store)",
        )


def _store_address(document: Document, url: str) -> Iterator[Problem]:
    if url.startswith(("memory:", "sqlite:")) or "://" not in url:
        return
    from policies.stores import open_store  # late: reads the address, connects to nothing

    try:
        open_store(url)
    except ValueError as error:
        if "store.url '" in str(error):
            return  # no store at all: the field itself says so
        why = str(error).removeprefix("store.url: ")
        yield Problem(document.place(("store", "url")), f"the store's address is wrong: {why}", "correct the address")


def _tokenizers(document: Document) -> Iterator[Problem]:
    """Names of encodings and models that neither the catalog nor the store knows."""
    section = _mapping(document.data.get("tokenizers"))
    models, preload = _mapping(section.get("models")), section.get("preload")
    preload = preload if isinstance(preload, list) else []
    if not models and not preload:
        return
    from tokenizers_offline.carried import open_tokenizers

    installed = open_tokenizers(Path(str(section.get("dir", "models")))).installed()
    if not models and set(map(str, preload)) <= set(installed):
        return
    from tokenizers_offline.catalog import Catalog, CatalogError, Override  # late: reading it takes a while
    from tokenizers_offline.prompt import UnknownModel

    catalog = Catalog.load()
    encodings = {*catalog.encodings(), *installed}
    route: Route = ("tokenizers", "preload")
    for position, name in enumerate(preload):
        if isinstance(name, str) and name not in encodings:
            yield Problem(
                document.place((*route, position)), f"there is no encoding `{name}`", _meant_encoding(name, encodings)
            )
    for name, model in models.items():
        fields = {field: value for field, value in _mapping(model).items() if isinstance(value, str)}
        route = ("tokenizers", "models", name)
        encoding, layout, like = (fields.get(field) for field in ("encoding", "layout", "like"))
        if encoding is not None and encoding not in encodings:
            place = document.place((*route, "encoding"))
            yield Problem(place, f"there is no encoding `{encoding}`", _meant_encoding(encoding, encodings))
        elif encoding is not None and layout is not None:
            try:
                Catalog.load({name: Override(encoding=encoding, layout=layout)}).resolve(name)
            except CatalogError:
                place = document.place((*route, "layout"))
                layouts = {spec.layout for spec in catalog.models()} | {spec.family for spec in catalog.models()}
                yield Problem(place, f"there is no layout `{layout}`", did_you_mean(layout, layouts))
        if like is not None:
            try:
                catalog.resolve(like)
            except UnknownModel as error:
                nearest = ", ".join(f"`{each}`" for each in error.nearest)
                remedy = f"the nearest are {nearest}" if nearest else "`tollgate models` lists what is known"
                yield Problem(document.place((*route, "like")), f"the catalog knows no model `{like}`", remedy)


def _meant_encoding(name: str, encodings: set[str]) -> str:
    near = difflib.get_close_matches(name, encodings, n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else "`tollgate models NAME` says which one a model has"
