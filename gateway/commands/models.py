"""``tollgate models``: what can be counted, with which tokenizer, how exactly?"""

from __future__ import annotations

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.failure import Failure
from gateway.commands.tables import json_option, print_json, print_table


@click.command()
@click.argument("names", nargs=-1)
@config_option
@json_option
def models(names: tuple[str, ...], *, config: str | None, as_json: bool) -> None:
    """List every model family that can be counted, or say how NAMES would be.

    A family stands for all its names: prefixes (openai/gpt-4o), dates, sizes and fine-tunes resolve to it.
    Exit code 1: a name is unknown.
    """
    from gateway.app import load_tokenizers
    from tokenizers_offline.prompt import CountingError

    settings = settings_from(config)
    try:
        counter = load_tokenizers(settings)
        specs = [counter.resolve(name) for name in names] if names else list(counter.catalog.models())
    except CountingError as error:
        raise Failure(str(error)) from None
    installed = frozenset(counter.store.installed())
    rows = [
        {
            "id": spec.name if names else spec.family,
            "family": spec.family,
            "encoding": spec.encoding,
            "layout": spec.layout,
            "accuracy": str(spec.accuracy),
            "available": spec.encoding in installed,
            "max_output_tokens": spec.max_output_tokens,
            "description": spec.description,
            "notes": list(spec.notes),
        }
        for spec in specs
    ]
    if as_json:
        print_json(rows)
        return
    columns = {"id": "model", "encoding": "encoding", "accuracy": "at best", "available": "installed"}
    if names:
        columns = {"id": "model", "family": "family", **columns}
    print_table(rows, columns={**columns, "description": "what it is"})
