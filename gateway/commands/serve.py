"""``tollgate serve``: the gateway itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.failure import Failure

if TYPE_CHECKING:
    from gateway.settings import Settings


@click.command()
@config_option
@click.option("--host", help="Address to listen on (also HOST).")
@click.option("--port", help="Port to listen on (also PORT).")
@click.option("--workers", help="Processes, or `auto` for one per core (also TOLLGATE_WORKERS).")
@click.option("--store", help="Where budgets are kept, as a URL (also TOLLGATE_STORE).")
@click.option("--models-dir", help="Where tokenizers are stored (also MODELS_DIR).")
@click.option("--log-level", help="DEBUG, INFO, WARNING or ERROR (also LOG_LEVEL).")
@click.option("--log-format", help="json, console or auto.")
def serve(config: str | None, **overrides: str | None) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests may finish.

    The environment wins over the file, and these options over both. A change of the file is in force within a second,
    if it is right; SIGHUP and POST /admin/reload ask for it at once.
    """
    settings = settings_from(config, **overrides)
    forks = hasattr(os, "fork")
    workers = settings.server.workers or (os.cpu_count() if forks else 1) or 1
    if workers > 1:
        if not forks:
            raise Failure(
                f"server.workers is {workers}, but there is no fork on this system (Windows), which several workers "
                "need: set it to 1 or auto, and start more gateways with one Redis if one core is not enough."
            )
        from gateway.workers import prepare_environment

        prepare_environment()

    from aiohttp import web

    from gateway.app import build_app, load_tokenizers, preload
    from gateway.config import config_path, load_settings
    from gateway.logging import configure_logging
    from gateway.serving import CannotListen, serve_here
    from policies.model import StoreLost
    from tokenizers_offline.prompt import CountingError

    configure_logging(level=settings.server.log_level, style=settings.server.log_format)
    try:
        counter = load_tokenizers(settings)
    except CountingError as error:
        raise Failure(str(error)) from None

    path = config_path(config)

    def reload() -> Settings:
        return load_settings(path, overrides=overrides)

    async def make_app() -> web.Application:
        return build_app(settings, counter=counter, reload=reload, loads_tokenizers=workers == 1)

    try:
        if workers > 1:
            from gateway.workers import serve_with_workers

            serve_with_workers(make_app, settings.server, workers=workers, loading=preload(counter, settings))
        else:
            serve_here(make_app, settings.server)
    except (CannotListen, StoreLost) as error:
        raise Failure(str(error), exit_code=3) from None
