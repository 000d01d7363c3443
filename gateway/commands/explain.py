"""``tollgate explain``: what would budgets make of this request, and why?"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.configured import config_option, settings_from
from gateway.commands.count import read_call, read_input
from gateway.commands.failure import Failure
from gateway.commands.stored import store_option, with_store
from gateway.commands.tables import json_option, print_json, print_table

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.settings import Settings
    from policies.engine import BudgetEngine
    from policies.explaining import Explanation
    from policies.model import Estimate, Key, Subject
    from tokenizers_offline.prompt import TokenCount


@dataclass(frozen=True, slots=True)
class _Asked:
    key_id: str
    model: str | None
    request: Path | None
    path: str | None


@dataclass(frozen=True, slots=True)
class _Told:
    key: Key
    status: str
    subject: Subject
    path: str
    count: TokenCount | None
    estimate: Estimate
    explained: Explanation


@dataclass(frozen=True, slots=True)
class _Turned:
    """A request that is turned away before any budget is asked."""

    key_id: str
    status: str
    model: str
    error: GatewayError


@click.command()
@click.option("--key", "key_id", metavar="ID", required=True, help="Id of the key that asks.")
@click.option("--model", help="Model it asks for; a request names its own.")
@click.option("--request", "request", type=click.Path(path_type=Path), help="Request body (JSON); - is standard input.")
@click.option("--path", help="Path the request would be posted to; otherwise told from the body.")
@store_option
@config_option
@json_option
def explain(
    *,
    key_id: str,
    model: str | None,
    request: Path | None,
    path: str | None,
    store: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Say which budgets a request meets and why, what would be counted and held, and what it would be answered.

    Nothing is held and nothing is sent. Without --request there is nothing to count: a request of no tokens is
    explained. Exit code 0: it would pass. 1: it would not, or an option is wrong. 3: the store or a tokenizer is not
    there.
    """
    if model is None and request is None:
        raise click.UsageError("give --model, or --request with a body that names one")
    settings = settings_from(config, store=store)
    asked = _Asked(key_id, model, request, path)
    in_memory = settings.store.url.startswith("memory:")

    async def work(engine: BudgetEngine, now: float) -> _Told | _Turned:
        return await _explained(settings, asked, engine, now)

    if in_memory:
        from gateway.app import operate

        told = asyncio.run(operate(settings, work))
    else:
        told = with_store(settings, work, instead="GET /budgets")
    if isinstance(told, _Turned):
        _tell_turned(told, as_json=as_json)
        sys.exit(1)
    answer = _answer(told)
    if as_json:
        print_json(_as_json(told, answer))
    else:
        _print(told, answer, in_memory=in_memory)
    sys.exit(0 if answer["passes"] else 1)


async def _explained(settings: Settings, asked: _Asked, engine: BudgetEngine, now: float) -> _Told | _Turned:
    from gateway.app import open_offline
    from gateway.callers import ANONYMOUS
    from gateway.config.problems import did_you_mean
    from gateway.describing import key_status
    from gateway.errors import GatewayError, Unavailable
    from gateway.operator_notes import forgotten_in
    from gateway.relearning import LINES, relearn
    from policies.explaining import explain as explain_budgets
    from policies.model import Estimate

    known = {key.id: key for key in engine.policy.keys} or {ANONYMOUS.id: ANONYMOUS}
    key = known.get(asked.key_id)
    if key is None:
        raise Failure(f"there is no key `{asked.key_id}`; {did_you_mean(asked.key_id, known)}")
    call, path, count = None, asked.path or "/", None
    if asked.request is not None:
        body = await asyncio.to_thread(read_input, asked.request)
        call, path = read_call(body, model=asked.model, path=asked.path)
    model = call.model if call is not None else asked.model or ""
    counting, upstreams = await asyncio.to_thread(open_offline, settings)
    try:
        upstream = upstreams.choose(path, format_name=call.format if call is not None else None, model=model)
        name = upstream.model_of(model)
        most = counting.resolve(name).max_output_tokens
        if call is None:
            estimate = Estimate(input_tokens=0, model_max_output=most)
        else:
            await relearn(counting, await engine.store.latest(limit=LINES), forgotten_in(await engine.store.notes()))
            count = (await counting.count_for(upstream, name, call.prompt)).best
            embeds = call.kind == "embed"
            estimate = Estimate(
                input_tokens=count.upper,
                output_cap=0 if embeds else call.output_cap,
                choices=call.choices,
                model_max_output=None if embeds else most,
            )
    except Unavailable as error:
        raise Failure(error.message, exit_code=3) from None
    except GatewayError as error:
        return _Turned(key.id, key_status(key, now=now), model, error)
    finally:
        counting.close()
    subject = engine.policy.subject(key, model=name, upstream=upstream.name)
    explained = await explain_budgets(engine, subject, estimate, now=now)
    return _Told(key, key_status(key, now=now), subject, path, count, estimate, explained)


def _tell_turned(told: _Turned, *, as_json: bool) -> None:
    error = told.error
    if as_json:
        answer = {"passes": False, "status": error.status, "code": error.code, "message": error.message}
        print_json(
            {"key": told.key_id, "key_status": told.status, "model": told.model, "budgets": [], "answer": answer}
        )
        return
    click.echo(f"key       {told.key_id} ({told.status})")
    click.echo(f"request   {told.model}")
    click.echo(f"answer    {error.status} {error.code}: {error.message}")


def _answer(told: _Told) -> dict[str, Any]:
    """What the caller would be answered: `passes`, and the status, code and words of a refusal."""
    from gateway.refusals import error_for_refusal

    if told.status != "active":
        return {"passes": False, "status": 401, "code": "invalid_api_key", "message": f"The key is {told.status}."}
    refusal = told.explained.decision.refusal
    if refusal is None and not told.explained.holdings:
        words = f"forwarded to '{told.subject.upstream}'; no budget limits it"
        return {"passes": True, "status": None, "code": None, "message": words}
    if refusal is None:
        return {"passes": True, "status": None, "code": None, "message": f"forwarded to '{told.subject.upstream}'"}
    error = error_for_refusal(refusal)
    return {
        "passes": False,
        "status": error.status,
        "code": error.code,
        "message": error.message,
        "retry_after_s": error.retry_after_s,
        "budget": refusal.budget,
        "scope": refusal.scope,
    }


def _as_json(told: _Told, answer: dict[str, Any]) -> dict[str, Any]:
    decision = told.explained.decision
    held = decision.reservation
    count = told.count
    return {
        "key": told.key.id,
        "key_status": told.status,
        "tags": dict(told.key.tags),
        "model": told.subject.model,
        "upstream": told.subject.upstream,
        "path": told.path,
        "count": None
        if count is None
        else {
            "input_tokens": count.input_tokens,
            "accuracy": str(count.accuracy),
            "upper_bound": count.upper,
            "encoding": count.encoding,
            "notes": list(count.notes),
        },
        "held": None if held is None else {"input_tokens": held.held_input, "output_tokens": held.held_output},
        "output_cap": {"asked": told.estimate.output_cap, "forwarded": decision.output_cap},
        "learned_output": told.explained.learned,
        "budgets": [
            {
                "budget": each.budget.name,
                "mode": each.budget.mode,
                "matches": each.matches,
                "why": list(each.reasons),
                "output_hold": each.output_hold or None,
            }
            for each in told.explained.meetings
        ],
        "limits": _limits(told),
        "answer": answer,
        "shadowed": [refusal.message for refusal in decision.shadowed],
    }


def _limits(told: _Told) -> list[dict[str, Any]]:
    from gateway.refusals import write_time

    return [
        {
            "budget": each.status.budget,
            "scope": each.status.scope,
            "mode": each.status.mode,
            "unit": each.status.unit,
            "per": f"sliding {each.status.per}" if each.status.sliding else each.status.per,
            "since": write_time(each.since) if each.since else None,
            "resets_at": write_time(each.status.resets_at),
            "limit": each.status.limit + each.status.granted,
            "used": each.status.used,
            "held": each.status.held,
            "remaining": each.status.remaining,
            "would_hold": each.asked,
            "least": each.least,
            "fits": each.fits,
        }
        for each in told.explained.holdings
    ]


def _print(told: _Told, answer: dict[str, Any], *, in_memory: bool) -> None:
    count, held = told.count, told.explained.decision.reservation
    tags = ", ".join(f"{tag}={value}" for tag, value in told.key.tags.items()) or "no tags"
    click.echo(f"key       {told.key.id} ({told.status}; {tags})")
    click.echo(f"request   {told.subject.model} at upstream '{told.subject.upstream}'")
    if count is None:
        click.echo("counted   nothing: no request was given (--request)")
    else:
        bound = "" if count.upper == count.input_tokens else f", at most {count.upper:,}"
        click.echo(f"counted   {count.input_tokens:,} tokens ({count.accuracy}{bound}; {count.encoding})")
        for note in count.notes:
            click.echo(f"          {note}")
    if held is not None and answer["passes"]:
        click.echo(f"held      {held.held_input:,} input + {held.held_output:,} output tokens")
    if told.explained.decision.output_cap is not None:
        click.echo(f"forwarded with an output cap of {told.explained.decision.output_cap:,}")
    rows = [
        {
            "budget": each.budget.name + (" (shadow)" if each.budget.mode == "shadow" else ""),
            "matches": each.matches,
            "why": "; ".join(each.reasons),
            "output": each.output_hold or None,
        }
        for each in told.explained.meetings
    ]
    if rows:
        print_table(
            rows, columns={"budget": "budget", "matches": "matches", "why": "why", "output": "output is held by"}
        )
    if limits := _limits(told):
        for each in limits:
            each["fits"] = {True: "yes", False: "no"}[each["fits"]] + (" (shadow)" if each["mode"] == "shadow" else "")
        print_table(limits, columns={name: name.replace("_", " ") for name in limits[0] if name != "mode"})
    if in_memory:
        click.echo("The store is `memory:`: what a running gateway has used and held is not seen here.")
    for refusal in told.explained.decision.shadowed:
        click.echo(f"a shadow budget would refuse: {refusal.message}")
    if answer["passes"]:
        click.echo(f"answer    passes: {answer['message']}")
    else:
        click.echo(f"answer    {answer['status']} {answer['code']}: {answer['message']}")
