"""Is anything lost, doubled or out of order? Pure: the log and what the webhooks brought come in, faults go out."""

from __future__ import annotations

from collections import Counter
from typing import Any

Event = dict[str, Any]


def check_events(call: dict[str, Any], events: list[Event]) -> list[str]:
    """The log of one call that has ended."""
    faults: list[str] = []
    if [e["seq"] for e in events] != list(range(1, len(events) + 1)):
        faults.append("sequence numbers are not 1, 2, 3, …")
    if len({e["id"] for e in events}) != len(events):
        faults.append("an event stands in the log twice")
    epochs = [e["epoch"] for e in events]
    if epochs != sorted(epochs):
        faults.append("epochs do not ascend")
    finals = [e for e in events if e["type"] == "call.ended"]
    if len(finals) != 1 or events[-1]["type"] != "call.ended":
        faults.append("there is not exactly one final event, at the end")
    if call["seq"] != len(events):
        faults.append("the call and its log disagree on how many events there are")
    return faults


def check_webhooks(events: list[Event], received: list[Event], refused: list[str]) -> list[str]:
    """Every event once, verified, in the order of its call."""
    faults = [f"a webhook was not genuine: {code}" for code in refused]
    doubled = [event_id for event_id, n in Counter(e["id"] for e in received).items() if n > 1]
    if doubled:
        faults.append(f"{len(doubled)} webhooks came twice")
    missing = {e["id"] for e in events} - {e["id"] for e in received}
    if missing:
        faults.append(f"{len(missing)} webhooks did not come")
    order = [e["seq"] for e in received]
    if order != sorted(order):
        faults.append("webhooks came out of order")
    by_id = {e["id"]: e for e in events}
    if any(by_id.get(e["id"], e) != e for e in received):
        faults.append("a webhook says something else than the log")
    return faults
