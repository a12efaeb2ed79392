"""Accounts for every answer: what was acknowledged is in the log, once; what was delivered is in the log. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stored:
    """One row of the log. `text`: of the writer's events."""

    call: str
    seq: int
    id: str
    origin_n: int | None


def check_log(rows: list[Stored]) -> list[str]:
    """The log by itself: dense, and nothing in it twice."""
    faults: list[str] = []
    by_call: dict[str, list[int]] = {}
    for row in rows:
        by_call.setdefault(row.call, []).append(row.seq)
    holes = [call for call, seqs in by_call.items() if sorted(seqs) != list(range(1, len(seqs) + 1))]
    if holes:
        faults.append(f"{len(holes)} calls whose numbers are not 1, 2, 3, …")
    for what, keys in {
        "ids": [row.id for row in rows],
        "numbers of an owner": [(row.call, row.origin_n) for row in rows if row.origin_n is not None],
    }.items():
        doubled = [key for key, n in Counter(keys).items() if n > 1]
        if doubled:
            faults.append(f"{len(doubled)} {what} stand in the log twice")
    return faults


def check_acknowledged(
    rows: list[Stored], sent: dict[str, list[dict[str, Any]]], durable: dict[str, int]
) -> list[str]:
    """Every acknowledged event, with the id that was sent under its number."""
    stored = {(row.call, row.origin_n): row.id for row in rows}
    lost = [
        (call, event["n"])
        for call, n in durable.items()
        for event in sent[call][:n]
        if stored.get((call, event["n"])) != event["id"]
    ]
    return [f"{len(lost)} acknowledged events are not in the log, such as {lost[0]}"] if lost else []


def check_created(rows: list[Stored], calls: set[str], made: dict[str, str]) -> list[str]:
    """Every create that was answered is one call, and no call was created beside."""
    faults: list[str] = []
    lost = set(made.values()) - {row.call for row in rows}
    if lost:
        faults.append(f"{len(lost)} calls that were answered are not in the log")
    if len(set(made.values())) != len(made):
        faults.append("two keys were answered with the same call")
    if calls - set(made.values()):
        faults.append(f"{len(calls - set(made.values()))} calls were created twice over")
    return faults


def check_delivered(rows: list[Stored], delivered: list[dict[str, Any]], by: str, *, once: bool) -> list[str]:
    """Nothing that is not in the log; all of it; in each call's order. `once`: this way of delivery doubles nothing."""
    faults: list[str] = []
    stored = {row.id: (row.call, row.seq) for row in rows}
    strange = [e for e in delivered if stored.get(e["id"]) != (e["call_id"], e["seq"])]
    if strange:
        faults.append(
            f"{by}: {len(strange)} events were delivered that the log does not have, such as {strange[0]['id']}"
        )
    missing = stored.keys() - {e["id"] for e in delivered}
    if missing:
        faults.append(f"{by}: {len(missing)} events were not delivered")
    doubled = len(delivered) - len({e["id"] for e in delivered})
    if once and doubled:
        faults.append(f"{by}: {doubled} events came twice")
    newest: dict[str, int] = {}
    seen: set[str] = set()
    for event in delivered:
        if event["id"] in seen:
            continue
        seen.add(event["id"])
        if event["seq"] < newest.get(event["call_id"], 0):
            faults.append(f"{by}: {event['id']} came after a later one of its call")
            break
        newest[event["call_id"]] = event["seq"]
    return faults
