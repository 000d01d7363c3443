"""The configuration as commands take it: one option, and errors as a list on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gateway.commands.failure import Failure
from gateway.config import ConfigError, config_path, load_settings

if TYPE_CHECKING:
    from gateway.settings import Settings

config_option = click.option(
    "--config", "config", metavar="FILE", help="Configuration file; else TOLLGATE_CONFIG, else config.yaml."
)


def settings_from(config: str | None, **overrides: Any) -> Settings:
    """Load the settings or end the command, naming every mistake."""
    path = config_path(config)
    try:
        return load_settings(path, overrides=overrides)
    except ConfigError as error:
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        count = len(error.problems)
        raise Failure(f"{path} cannot be used ({count} mistake{'s' if count > 1 else ''}):\n{listed}") from None
