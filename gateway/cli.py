"""The command line: ``tollgate COMMAND``. Each command's module is imported only when it is called.

Exit codes: 0 done; 1 what was asked about is wrong (a bad configuration, an unknown model, a failed check);
2 the command line itself is wrong; 3 something that is needed is not there (a tokenizer, the store, a free port).
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from gateway.commands.failure import Failure

COMMANDS = (
    "serve",
    "check",
    "explain",
    "replay",
    "count",
    "models",
    "tokenizers",
    "keys",
    "status",
    "usage",
    "version",
)


class _LazyGroup(click.Group):
    """Finds ``gateway.commands.NAME`` when NAME is called, and in it the click command of that name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"gateway.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from gateway.config.problems import did_you_mean

            ctx.fail(f"there is no command `{args[0]}`; {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tollgate", message="%(version)s")
def tollgate() -> None:
    """Count LLM tokens offline and hold token budgets before requests are forwarded.

    \b
    Exit codes: 0 done, 1 what was asked about is wrong, 2 wrong command line,
    3 something needed is not there (a tokenizer, the store, a free port).
    """


def main(argv: list[str] | None = None) -> Any:
    """Run the command line and exit with its code."""
    try:
        return tollgate.main(args=argv, prog_name="tollgate")
    except Failure as failure:
        click.echo(f"tollgate: {failure}", err=True)
        sys.exit(failure.exit_code)
