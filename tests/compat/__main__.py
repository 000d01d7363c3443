"""Run real clients through a gateway, hold every cell against the provider's bill, write docs/compatibility.md.

make compat            everything
make compat ROWS=curl  rows whose name contains this; the page is left as it is
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from gateway.logging import configure_logging
from tests.compat.cells import ROWS, Row
from tests.compat.gateways import EchoGateway, Gateway
from tests.compat.page import installed, write_page
from tests.compat.programs import open_program
from tests.compat.provider import Provider
from tests.compat.scripts import Result, prepare_node, run_row

ROOT = Path(__file__).resolve().parents[2]
PASSED = Path(__file__).with_name("passed.txt")
"""The versions of the last run in which nothing failed; CI takes them (``CLIENTS=passed``)."""
AT_ONCE = 2


async def main(wanted: str) -> int:
    """Run the rows whose name contains `wanted`; the exit code is 1 if a cell failed."""
    started_s = time.perf_counter()
    rows = [row for row in ROWS if wanted.lower() in row.name.lower()]
    if not rows:
        print(f"No row's name contains '{wanted}'. Rows: {', '.join(row.name for row in ROWS)}.", file=sys.stderr)
        return 2
    configure_logging(level="CRITICAL")
    prepare_node()
    results: dict[Row, dict[str, Result]] = {}
    async with EchoGateway() as echo:
        turn = asyncio.Semaphore(AT_ONCE)

        async def run(row: Row) -> None:
            async with turn:
                try:
                    results[row] = await _try(row, echo_url=echo.url)
                except Exception as error:  # a program that does not start must not hide the other rows
                    results[row] = {cell: Result(f"{type(error).__name__}: {error}") for cell in row.cells}
            for cell, result in results[row].items():
                print(f"{row.name:40} {cell:12} {'ok' if not result.error else 'FAILED'} {result.note}", flush=True)
                if result.error:
                    print("    " + result.error.strip().replace("\n", "\n    "), flush=True)

        await asyncio.gather(*(run(row) for row in rows))
    took_s = time.perf_counter() - started_s
    failed = sum(bool(result.error) for cells in results.values() for result in cells.values())
    tried = sum(len(cells) for cells in results.values())
    print(f"{tried - failed} of {tried} cells passed in {took_s:.0f} s")
    if not wanted:
        page = ROOT / "docs" / "compatibility.md"
        page.write_text(write_page([(row, results[row]) for row in rows], at=datetime.now(UTC), took_s=took_s))
        if not failed:
            PASSED.write_text("".join(f"{each}\n" for each in installed()))
    return 1 if failed else 0


async def _try(row: Row, *, echo_url: str) -> dict[str, Result]:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(Provider(echo_url))
        if row.through:
            place = await open_program(stack, row, provider=provider, echo_url=echo_url)
        else:
            gateway = await stack.enter_async_context(Gateway(row, upstream_url=provider.url))
            place = gateway.place(provider)
        return await run_row(row, place)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(os.environ.get("ROWS", ""))))
