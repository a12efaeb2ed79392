"""Is anything lost, doubled or out of order? Pure: the log and what the webhooks brought come in, faults go out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from regions.wire.event_data import EVENT_DATA

Event = dict[str, Any]
OPEN = frozenset({"tool.called", "tool.result", "transcript.partial"})
"""What the customer's backend sent, whatever it is."""


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
    faults += check_data(events)
    if call["seq"] != len(events):
        faults.append("the call and its log disagree on how many events there are")
    return faults


def check_data(events: list[Event]) -> list[str]:
    """Against the published contract: what is promised is there, and nothing that the contract does not know of."""
    faults: list[str] = []
    for event in events:
        type_, data = event["type"], event["data"]
        struct = EVENT_DATA.get(type_)
        if struct is None:
            faults.append(f"nobody has heard of {type_}")
            continue
        if data == {"erased": True}:
            continue
        try:
            msgspec.convert(data, struct)
        except msgspec.ValidationError as error:
            faults.append(f"{type_} breaks its contract: {error}")
        unknown = set(data) - set(struct.__struct_fields__) if isinstance(data, dict) else set()
        if unknown and type_ not in OPEN:
            faults.append(f"{type_} has fields that its contract does not know: {sorted(unknown)}")
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
