"""Running one row's script, and holding what its cells did against the gateway's budgets and the provider's bills."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import GatewayError
from tests.compat.cells import MOST_TRIES, Row
from tests.compat.gateways import MONTH, Place, key_for

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-compat"
CLIENTS = Path(__file__).parent / "clients"
SCRIPT_S = 150.0
SETTLING_S = 10.0
"""So long a cancelled answer may take to be settled: its connection has to be found closed first."""


@dataclass
class Result:
    """One cell: what is wrong with it ("" for nothing), and what is worth telling."""

    error: str = ""
    note: str = ""


def prepare_node() -> None:
    """Put the JavaScript clients beside the packages they import: Node looks for those from a file's own folder."""
    for script in CLIENTS.glob("*.mjs"):
        shutil.copy(script, VENV / script.name)


async def run_row(row: Row, place: Place) -> dict[str, Result]:
    """Run all cells of a row in one process, then check each."""
    told = {cell: {"url": place.url, "key": key_for(row, cell)} for cell in row.cells}
    command = ["node", str(VENV / row.script)] if row.is_node else [str(VENV / "bin/python"), str(CLIENTS / row.script)]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | place.environment,
    )
    try:
        out, complaints = await asyncio.wait_for(process.communicate(json.dumps(told).encode()), SCRIPT_S)
    except TimeoutError:
        process.kill()
        out, complaints = await process.communicate()
    lines = [json.loads(line[2:]) for line in out.decode().splitlines() if line.startswith("@@")]
    said = {line["cell"]: line for line in lines}
    results = {}
    for cell in row.cells:
        if cell not in said:
            results[cell] = Result(f"the script ended before this cell:\n{complaints.decode()[-1500:]}")
        elif "error" in said[cell]:
            results[cell] = Result(said[cell]["error"])
        else:
            results[cell] = await _check(cell, key_for(row, cell), place, text=said[cell].get("text", ""))
    return results


async def _check(cell: str, key: str, place: Place, *, text: str) -> Result:
    used, held = await _settled(cell, place)
    bills = place.provider.bills[key]
    if held:
        return Result(f"{held} tokens are still held")
    if cell == "errors":
        lines = [line async for line in place.runtime.engine.store.entries(key_id=cell)]
        tries = sum(line.outcome == "refused" for line in lines)
        if bills.requests or used != MONTH:
            return Result(f"the refused request reached the provider {bills.requests} times, used {used}")
        if not 1 <= tries <= MOST_TRIES:
            return Result(f"{tries} requests were refused: a storm of tries, or none at all")
        return Result(note=f"{tries} tried")
    if cell == "failure":
        return Result("" if used == 0 and bills.requests else f"used {used} of {bills.requests} failed requests")
    if cell == "cancellation":
        return await _check_cancelled(place, used, bills.tokens, sent=bills.sent, text=text)
    if bills.tokens == 0:  # Gemini bills embeddings without a figure: then the count is charged
        return Result("" if used > 0 else "nothing was billed, and nothing charged", note="counted")
    sources = {line.source async for line in place.runtime.engine.store.entries(key_id=cell)}
    if sources != {"reported"}:
        return Result(f"the provider reported what it used, but charged was what is {sources}")
    return Result("" if used == bills.tokens else f"the provider billed {bills.tokens}, the budget says {used}")


async def _check_cancelled(place: Place, used: int, billed: int, *, sent: list[str], text: str) -> Result:
    """Charged is at least what the client has read, and at most what the provider sent before it was hung up on."""
    if billed:
        return Result("the provider was never hung up on")
    (line,) = [each async for each in place.runtime.engine.store.entries(key_id="cancellation")]
    read, spoken = await _count(place, line.model, [text, _spoken(sent)])
    least, most = line.counted_tokens + read, line.counted_tokens + spoken
    if not text or line.outcome not in ("cancelled", "cut") or not least <= used <= most:
        return Result(f"{line.outcome}: used {used}, where {least} were read and {most} sent")
    return Result()


async def _count(place: Place, model: str, texts: list[str]) -> list[int]:
    try:
        return await place.runtime.counting.count_texts(model, texts)
    except GatewayError as error:
        raise AssertionError(f"what was relayed cannot be counted: {error.message}") from error


def _spoken(events: list[str]) -> str:
    """The text of a stream's events, in any API's shape."""
    pieces = []
    for event in events:
        for line in event.splitlines():
            if line.startswith("data: {"):
                document = json.loads(line[6:])
                pieces += [choice["delta"].get("content") or "" for choice in document.get("choices", [])]
                pieces.append(document.get("delta", {}).get("text") or "")
                for candidate in document.get("candidates", []):
                    pieces += [part.get("text", "") for part in candidate.get("content", {}).get("parts", [])]
    return "".join(pieces)


async def _settled(cell: str, place: Place) -> tuple[int, int]:
    """Used and held of a cell's key, once nothing is held any more or `SETTLING_S` have passed."""
    runtime = place.runtime
    key = next(each for each in runtime.policy.keys if each.id == cell)
    deadline = time.monotonic() + SETTLING_S
    while True:
        (status,) = await runtime.engine.status(key, now=time.time())
        if not status.held or time.monotonic() > deadline:
            return status.used, status.held
        await asyncio.sleep(0.05)
