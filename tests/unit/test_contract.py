"""What is promised about events: a schema for each, documents whose references lead somewhere, and a client with the same types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import voxplane
from app import contract
from app.local.proof import check_data
from app.log import messages
from regions.wire.event_data import EVENT_DATA
from regions.wire.events import EVENT_TYPES, Lost
from tests.support.schemas import OPENAPI, data_schema, event_faults, faults, resolve
from voxplane import events as client_events

ASYNCAPI = json.loads((OPENAPI / "asyncapi.json").read_text())
PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
BASE: dict[str, Any] = {
    "id": "evt_1", "call_id": "call_1", "seq": 1, "epoch": 1, "region": "r", "timestamp": "t",
}  # fmt: skip
TAIL = PAGE[PAGE.index("### What the log has") :]


def recorded() -> list[tuple[str, dict[str, Any]]]:
    """The events of the recorded call on the page of protocols."""
    lines = [line.split(None, 4) for line in TAIL.splitlines() if line[:2].strip().isdigit() and "{" in line]
    return [(line[3], json.loads(line[4])) for line in lines]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_every_type_has_its_data_and_its_schema() -> None:
    assert set(EVENT_DATA) == set(EVENT_TYPES)
    assert {p.name for p in (OPENAPI / "events").iterdir()} == set(contract.schemas())
    for name in EVENT_TYPES:
        schema = data_schema(name)
        assert all(resolve(ref, schema) for ref in references(schema))


def test_descriptions_are_the_same_on_every_python() -> None:
    """From 3.13 on docstrings come without their indentation: what is written on one would be stale on another."""
    components = [*ASYNCAPI["components"]["schemas"].values()]
    components += [d for name in EVENT_TYPES for d in data_schema(name)["$defs"].values()]
    found = [c["description"] for c in components if "description" in c]
    assert any("\n" in text for text in found)
    assert not any("\n " in text for text in found)


def test_the_asyncapi_document_holds_together() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(ASYNCAPI["info"])
    assert all(resolve(ref, ASYNCAPI) for ref in references(ASYNCAPI))
    for operation in ASYNCAPI["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert all(m["$ref"].startswith(f"{channel}/messages/") for m in operation["messages"])
    durable = {t for t, kind in EVENT_TYPES.items() if kind.durable}
    assert set(ASYNCAPI["channels"]["webhook"]["messages"]) == durable
    assert {c["address"] for c in ASYNCAPI["channels"].values()} == {
        None, "/v1/events/stream", "/v1/calls/{call_id}/events/stream", "/v1/events/ws",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("struct", "said"),
    [
        (messages.Subscribe, {"type": "subscribe", "types": ["call.*"], "window": 5}), (messages.Ack, {"type": "ack", "cursor": "x"}),
        (messages.Ping, {"type": "ping"}), (messages.Pong, {"type": "pong"}),
    ],
    ids=["subscribe", "ack", "ping", "pong"],
)  # fmt: skip
def test_what_a_reader_says_fits_the_document_and_the_decoder(struct: type, said: dict[str, Any]) -> None:
    schema = ASYNCAPI["components"]["schemas"][struct.__name__]
    known = {k: v for k, v in schema.items() if k != "additionalProperties"}
    assert faults(said, known, ASYNCAPI) == []
    assert isinstance(messages.decode(json.dumps(said)), struct)


def test_a_recorded_call_keeps_to_the_contract() -> None:
    calls = recorded()
    assert len(calls) == 19
    for type_, data in calls:
        assert event_faults({"type": type_, "data": data}) == []
    assert check_data([{"type": t, "data": d} for t, d in calls]) == []


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("call.ended", {}), ("call.ended", {"end_reason": 1}), ("turn.ended", {"role": "caller"}),
        ("speech.started", {"offset_ms": -1, "barge_in": True}), 
        ("call.created", {"caller": {}, "region": "r", "standbys": [], "metadata": {}}),
        ("playback.done", {"utterance": True, "length_ms": 1}),
    ],
    ids=range(6),
)  # fmt: skip
def test_what_breaks_it_is_found(type_: str, data: dict[str, Any]) -> None:
    assert event_faults({"type": type_, "data": data})
    assert check_data([{"type": type_, "data": data}])


def test_what_nobody_has_heard_of_is_found_here_and_ignored_by_readers() -> None:
    data = {"clean": True, "more": 1}
    assert check_data([{"type": "agent.disconnected", "data": data}])
    assert event_faults({"type": "agent.disconnected", "data": data}) == []
    assert check_data([{"type": "tool.called", "data": {"id": "1", "anything": [1]}}]) == []
    assert check_data([{"type": "turn.ended", "data": {"erased": True}}]) == []


def test_lost_events_are_written_as_the_contract_says() -> None:
    lost = msgspec.to_builtins(Lost(epoch=1, from_n=2, to_n=3, reason="spool"))
    assert event_faults({"type": "events.lost", "data": lost}) == []


def test_the_clients_types_are_the_contract() -> None:
    assert set(client_events.EVENT_DATA) == set(EVENT_DATA)
    for type_, data in recorded():
        schema = data_schema(type_)
        event = BASE | {"type": type_, "data": data}
        typed = voxplane.typed(event)
        assert type(typed.data).__name__ == EVENT_DATA[type_].__name__
        assert faults(msgspec.to_builtins(typed.data), schema, schema) == []


def test_the_client_takes_what_later_releases_add() -> None:
    newer = voxplane.typed(
        BASE | {"type": "agent.disconnected", "data": {"clean": False, "new": 1}, "new": 2}
    )
    assert (newer.type, newer.data.clean) == ("agent.disconnected", False)
    unknown = voxplane.typed(BASE | {"type": "call.levitated", "data": {"height_m": 2}})
    assert unknown.data == {"height_m": 2}
    erased = voxplane.typed(BASE | {"type": "turn.ended", "data": {"erased": True}})
    assert type(erased.data).__name__ == "Erased"
    withheld = {"type": "turn.ended", "data": {"withheld": True}}
    assert (type(voxplane.typed(BASE | withheld).data).__name__, event_faults(withheld)) == ("Withheld", [])
    assert event_faults({"type": "call.ended", "data": {"withheld": True}})
    live = {k: v for k, v in BASE.items() if k not in ("id", "seq")}
    partial = voxplane.typed(live | {"type": "transcript.partial", "data": {"text": "he"}})
    assert (partial.id, partial.seq, partial.data.text) == (None, None, "he")
