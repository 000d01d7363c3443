"""Do callers, ledger, counters and upstream tell the same story? One row of figures, and every contradiction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.overspend.cases import Case, Outcome
from benchmarks.overspend.trail import Admitted, Audit, Place
from policies.ledger import LedgerEntry
from policies.stores.base import Row

UNSEEN_S = 0.05
"""A trail follows commits: a hold that ended this fast may have begun and ended in one, and be in none."""

CaseName = tuple[str, int]
"""A case's key and its input tokens: no two cases share both."""


@dataclass(frozen=True, slots=True)
class Served:
    """What the upstream would bill for a case, over all tries."""

    input_tokens: int = 0
    output_tokens: int = 0
    tries: int = 0
    complete: bool = False

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass
class Verdict:
    """The figures of a run and what contradicts its promises (`violations`; empty is the pass)."""

    figures: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def judge(
    outcomes: Sequence[Outcome],
    *,
    audit: Audit,
    entries: Sequence[LedgerEntry],
    counters: Sequence[Row],
    holds_left: int,
    journal: Sequence[Mapping[str, Any]],
) -> Verdict:
    """Compare all accounts of a run."""
    verdict = Verdict(violations=list(audit.violations))
    cases = {(outcome.case.key_id, outcome.case.input_tokens): outcome for outcome in outcomes}
    served = _served(outcomes, journal)
    rows: dict[CaseName, LedgerEntry] = {}
    holds = {(held.key_id, held.input_tokens): held for held in audit.admissions}
    if len(holds) != len(audit.admissions):
        verdict.violations.append(f"{len(audit.admissions) - len(holds)} cases were held twice")
    for entry in entries:
        name = (entry.key_id, entry.held_input or entry.counted_tokens)
        if name not in cases:
            verdict.violations.append(f"the ledger has a line of nobody's: {entry}")
        elif name in rows:
            verdict.violations.append(f"{name} is in the ledger twice: {rows[name].outcome}, {entry.outcome}")
        rows[name] = entry
    unseen = {
        name: row
        for name, row in rows.items()
        if name not in holds and row.outcome not in ("refused", "abandoned") and row.latency_s < UNSEEN_S
    }
    sums: Counter[str] = Counter()
    for name, outcome in cases.items():
        row, bill = rows.get(name), served.get(name, Served())
        wrong = _contradiction(outcome, row, bill, held=holds.get(name), unseen=name in unseen)
        if wrong:
            verdict.violations.append(f"{name} {outcome.case.fate} {wrong}; {outcome}; {row}; {bill}")
        _add(sums, outcome, row, bill)
    _compare_counters(verdict, rows, holds, counters, unseen=list(unseen.values()))
    if holds_left:
        verdict.violations.append(f"{holds_left} holds are left")
    verdict.figures = _figures(outcomes, audit, entries, sums)
    verdict.figures["held and ended within one commit"] = len(unseen)
    return verdict


def _served(outcomes: Sequence[Outcome], journal: Sequence[Mapping[str, Any]]) -> dict[CaseName, Served]:
    by_number = {outcome.case.number: outcome.case for outcome in outcomes}
    served: dict[CaseName, Served] = {}
    for line in journal:
        case: Case = by_number[line["case"]]
        name = (case.key_id, case.input_tokens)
        so_far = served.get(name, Served())
        answered = line["answered"]
        served[name] = Served(
            so_far.input_tokens + (line["input"] if answered else 0),
            so_far.output_tokens + line["output"],
            so_far.tries + 1,
            so_far.complete or line["complete"],
        )
    return served


def _contradiction(
    outcome: Outcome, row: LedgerEntry | None, bill: Served, *, held: Admitted | None, unseen: bool
) -> str:
    """What the ledger's line of one case has wrong; "" for nothing."""
    case = outcome.case
    if row is None:
        if held is not None:
            return "was held and is not in the ledger"
        if bill.tries:
            return "reached the upstream and is not in the ledger"
        return "was answered and is not in the ledger" if outcome.status == 200 else ""
    charged = (row.input_tokens, row.output_tokens)
    if row.outcome == "refused":
        return "was refused and forwarded" if bill.tries else "was refused and charged" if any(charged) else ""
    if held is None and not unseen:
        return "was forwarded and never held"
    if held is not None and row.outcome == "abandoned":
        if charged != (held.input_tokens, held.output_tokens):
            return f"was abandoned and not charged as held ({held})"
        # An answer that outgrew its hold is known to nobody but the upstream when its gateway is killed.
        return "was abandoned and charged less than was served" if case.key_id[0] == "s" and _less(row, bill) else ""
    if not bill.input_tokens:
        # No answer began. A caller who left while the upstream read the prompt owes the prompt.
        owed = (case.input_tokens, 0) if row.outcome == "cancelled" and row.source else (0, 0)
        return "" if charged == owed else "was charged though no answer began"
    if charged == (bill.input_tokens, bill.output_tokens):
        return ""
    if row.outcome != "cancelled" or outcome.drains:
        return "was not charged what was served"
    if charged[0] != bill.input_tokens or not outcome.received <= charged[1] <= bill.output_tokens:
        return "was cancelled and charged something else than was relayed"
    return ""


def _less(row: LedgerEntry, bill: Served) -> bool:
    return row.input_tokens < bill.input_tokens or row.output_tokens < bill.output_tokens


def _compare_counters(
    verdict: Verdict,
    rows: Mapping[CaseName, LedgerEntry],
    holds: Mapping[CaseName, Admitted],
    counters: Sequence[Row],
    *,
    unseen: Sequence[LedgerEntry],
) -> None:
    """The ledger's lines, added up on the counters that their holds were made on, are the counters. Of holds that the
    trail has not seen only the scope is known: the counters there may say so much more."""
    expected: dict[Place, int] = {}
    for name, held in holds.items():
        for place, amount in held.lines:
            expected[place] = expected.get(place, 0) + _used(rows.get(name), place, amount)
    for counter in counters:
        place = (counter.series, counter.slot)
        if counter.held:
            verdict.violations.append(f"{place} still holds {counter.held}")
        owed = expected.pop(place, 0)
        possible = {owed}
        for row in unseen:
            if place[0].split("|")[1] in ("all", f"key={row.key_id}", f"team={row.tags.get('team')}"):
                possible |= {sum_ + _used(row, place, 1) for sum_ in possible}
        if counter.used not in possible:
            verdict.violations.append(f"{place}: the counter says {counter.used}, the ledger {owed}")
    verdict.violations += [f"{place} is gone, with {used} used" for place, used in expected.items() if used]


def _used(row: LedgerEntry | None, place: Place, amount: int) -> int:
    """What a ledger line comes to on a counter on which it held an amount."""
    unit = place[0].split("|")[2]
    if row is None or unit == "concurrent" or not row.source:
        return 0
    if unit == "requests":
        return amount
    if unit == "input_tokens":
        return row.input_tokens
    return row.output_tokens if unit == "output_tokens" else row.input_tokens + row.output_tokens


def _add(sums: Counter[str], outcome: Outcome, row: LedgerEntry | None, bill: Served) -> None:
    kind = "none" if row is None else row.outcome
    sums[f"cases_{kind}"] += 1
    charged = row.input_tokens + row.output_tokens if row is not None else 0
    group = "abandoned" if kind == "abandoned" else "cancelled" if kind == "cancelled" else "exact"
    sums[f"charged_{group}"] += charged
    sums[f"served_{group}"] += bill.tokens
    sums["counted"] += row is not None and row.source == "counted"
    sums["debts"] += row is not None and charged > row.held_input + row.held_output
    sums["broken_off"] += bool(outcome.error)


def _figures(
    outcomes: Sequence[Outcome], audit: Audit, entries: Sequence[LedgerEntry], sums: Counter[str]
) -> dict[str, Any]:
    return {
        "requests": len(outcomes),
        "admissions": len(audit.admissions),
        "refusals": sum(entry.outcome == "refused" for entry in entries),
        "abandoned": sums["cases_abandoned"],
        "cancelled": sums["cases_cancelled"],
        "cut": sums["cases_cut"],
        "upstream errors": sums["cases_upstream_error"] + sums["cases_released"],
        "settled by our own count": sums["counted"],
        "debts (answers beyond their hold)": sums["debts"],
        "connections broken (kills, cuts)": sums["broken_off"],
        "commits": audit.commits,
        "limit checks at admission (proven + bounded)": f"{audit.checks} ({audit.proven} + {audit.bounded})",
        "fullest": {name: round(share, 3) for name, share in sorted(audit.fullest.items())},
        "tokens charged = served, cases with an end": f"{sums['charged_exact']} = {sums['served_exact']}",
        "tokens charged / written by the upstream, cancelled": f"{sums['charged_cancelled']} / "
        f"{sums['served_cancelled']}",
        "tokens charged / served, abandoned": f"{sums['charged_abandoned']} / {sums['served_abandoned']}",
    }
