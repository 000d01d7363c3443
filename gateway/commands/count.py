"""``tollgate count``: how many tokens is this, for that model?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.failure import Failure
from gateway.commands.tables import json_option, print_json

if TYPE_CHECKING:
    from gateway.formats.base import Call
    from tokenizers_offline.prompt import Prompt

_PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "openai_completions": "/v1/completions",
    "openai_embeddings": "/v1/embeddings",
    "anthropic_messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:generateContent",
}
"""Where a body of each format is usually posted."""


@click.command()
@click.option("--model", help="Model name; a request names its own.")
@click.option("--text", help="Text to count.")
@click.option("--file", "file", type=click.Path(path_type=Path), help="File whose text to count; - is standard input.")
@click.option(
    "--request", "request", type=click.Path(path_type=Path), help="Request body (JSON) to count like the proxy would."
)
@click.option("--path", help="Path the request would be posted to; otherwise told from the body.")
@click.option("--platform", default="", help="Who serves the model, where that changes the bill (openai, azure, ...).")
@config_option
@json_option
def count(
    *,
    model: str | None,
    text: str | None,
    file: Path | None,
    request: Path | None,
    path: str | None,
    platform: str,
    config: str | None,
    as_json: bool,
) -> None:
    """Count a text or a whole request with the tokenizer of its model, offline.

    Exit code 1: the model is unknown or the request is malformed. 3: the model's tokenizer is not installed.
    """
    given = [each for each in (text, file, request) if each is not None]
    if len(given) != 1:
        raise click.UsageError("give one of --text, --file and --request")
    if request is None and model is None:
        raise click.UsageError("--text and --file need --model")
    prompt, model = _prompt(model=model, text=text, file=file, request=request, path=path)

    from gateway.app import load_tokenizers
    from tokenizers_offline.prompt import CountingError, TokenizerUnavailable

    settings = settings_from(config)
    try:
        counter = load_tokenizers(settings)
        found = counter.count(model, prompt, platform=platform)
        family = counter.resolve(model).family
    except TokenizerUnavailable as error:
        raise Failure(str(error), exit_code=3) from None
    except CountingError as error:
        raise Failure(str(error)) from None
    result = {
        "model": model,
        "family": family,
        "token_count": found.input_tokens,
        "accuracy": str(found.accuracy),
        "upper_bound": found.upper,
        "encoding": found.encoding,
        "features": list(found.features),
        "notes": list(found.notes),
    }
    if as_json:
        print_json(result)
        return
    bound = "" if found.upper == found.input_tokens else f", at most {found.upper:,}"
    click.echo(f"{found.input_tokens:,} tokens ({found.accuracy}{bound}; {found.encoding})")
    for note in found.notes:
        click.echo(f"  {note}")


def _prompt(
    *, model: str | None, text: str | None, file: Path | None, request: Path | None, path: str | None
) -> tuple[Prompt, str]:
    from tokenizers_offline.prompt import TextPrompt

    if request is not None:
        call, _ = read_call(read_input(request), model=model, path=path)
        return call.prompt, call.model
    if text is None:
        assert file is not None
        text = read_input(file).decode("utf-8", "surrogateescape")
    assert model is not None
    return TextPrompt((text,)), model


def read_call(body: bytes, *, model: str | None, path: str | None) -> tuple[Call, str]:
    """Read a request's body as the proxy would, and say which path it would be posted to. Ends the command where it
    cannot be read. `model` stands in place of the request's own, `path` (otherwise told from the body) says what
    API it is of."""
    from gateway import formats
    from gateway.errors import GatewayError

    path = path or _usual_path(body, model)
    found = formats.match("POST", path)
    if found is None:
        raise Failure(f"no format answers to {path}; with --path, name one such as /v1/chat/completions")
    fmt, route, groups = found
    if model is not None:
        groups = {**groups, "model": model}
        body = _with_model(body, model)
    try:
        return fmt.parse(route, groups, body), path
    except GatewayError as error:
        raise Failure(f"the request cannot be read as {fmt.name}: {error.message}") from None


def _usual_path(body: bytes, model: str | None) -> str:
    fields = _object(body)
    model = model or str(fields.get("model", ""))
    if "contents" in fields:
        name = "gemini"
    elif "messages" in fields:
        anthropic = "claude" in model or ("system" in fields and "max_tokens" in fields)
        name = "anthropic_messages" if anthropic else "openai_chat"
    elif "prompt" in fields:
        name = "openai_completions"
    elif "input" in fields:
        name = "openai_embeddings" if "embed" in model else "openai_responses"
    else:
        raise Failure("the request has no `messages`, `contents`, `input` or `prompt`; with --path, say what it is")
    if name == "gemini" and not model:
        raise Failure("a Gemini request does not name its model; add --model")
    return _PATHS[name].replace("{model}", model)


def _with_model(body: bytes, model: str) -> bytes:
    return json.dumps({**_object(body), "model": model}).encode()


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Failure("the request is not JSON") from None
    if not isinstance(value, dict):
        raise Failure("the request is not a JSON object")
    return value


def read_input(path: Path) -> bytes:
    """The bytes of a file, - being standard input. Ends the command where it cannot be read."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from None
