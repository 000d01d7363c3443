"""Where the tokenizer commands look, and how they end when counting's errors end them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from gateway.commands.failure import Failure
from gateway.config import config_path
from tokenizers_offline.prompt import CountingError

dir_option = click.option(
    "--dir", "folder", metavar="DIR", help="Where tokenizers are kept; else MODELS_DIR, else tokenizers.dir."
)


def tokenizer_folder(given: str | None) -> Path:
    """The folder given, else MODELS_DIR, else what the configuration says, else ./models."""
    chosen = given or os.environ.get("MODELS_DIR")
    if chosen:
        return Path(chosen)
    path = Path(config_path(None))
    if path.is_file():
        from gateway.commands.configured import settings_from

        return settings_from(None).tokenizers.dir
    return Path("models")


@contextmanager
def told() -> Iterator[None]:
    """Counting's errors end the command with their message."""
    try:
        yield
    except CountingError as error:
        raise Failure(str(error)) from None
