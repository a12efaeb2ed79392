"""What events promise, as documents: a JSON Schema for the data of every type, and AsyncAPI 3 for the ways they are sent. Pure.

Decides nothing about events: it is made from the structs that write and read them. Versions are additive (`regions.wire.event_data`).
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from app.log import messages
from app.log.cloudevents import CloudEvent
from regions.wire.event_data import EVENT_DATA, Erased, Withheld
from regions.wire.events import EVENT_TYPES, EventType, PublicEvent, VolatileEvent

Json = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
VERSION = "1"
ADDITIVE = (
    "Version 1. Later releases add event types, fields and values where a field has examples; they take away, rename and retype "
    "nothing. A reader ignores what it does not know."
)
REF = "#/components/schemas/{name}"
TO_READER = (messages.Subscribed, messages.EventMessage, messages.VolatileMessage, messages.Ping, messages.Pong,
             messages.ProblemMessage)  # fmt: skip
FROM_READER = (messages.Subscribe, messages.Ack, messages.Ping, messages.Pong)


def schema_of(type_: str) -> Json:
    """The JSON Schema of the data of one type, complete in itself."""
    kind, struct = EVENT_TYPES[type_], EVENT_DATA[type_]
    wanted: list[type] = [struct, *_instead(kind)]
    refs, defs = _described(wanted, ref_template="#/$defs/{name}")
    schema: Json = {
        "$schema": DIALECT,
        "$id": f"urn:voxplane:events:{VERSION}:{type_}",
        "title": type_,
        "description": f"The data of `{type_}`. {ADDITIVE}",
    }
    return schema | (refs[0] if len(refs) == 1 else {"anyOf": list(refs)}) | {"$defs": defs}


def _described(structs: list[type], *, ref_template: str) -> tuple[tuple[Json, ...], dict[str, Json]]:
    """Refs and definitions, whose descriptions are docstrings without their indentation: Python keeps it until 3.12."""
    refs, defs = msgspec.json.schema_components(structs, ref_template=ref_template)
    for definition in defs.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return refs, defs


def _instead(kind: EventType) -> list[type[msgspec.Struct]]:
    """What may stand where its data would: what is content can be erased where it is kept, and withheld from a reader."""
    return ([Erased] if kind.durable else []) + [Withheld] if kind.content else []


def schemas() -> dict[str, Json]:
    """By file name."""
    return {f"{type_}.schema.json": schema_of(type_) for type_ in EVENT_TYPES}


def asyncapi() -> Json:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Voxplane events",
            "version": VERSION,
            "description": f"What happens to calls, as it is sent: webhooks, server-sent events, a WebSocket. {ADDITIVE}",
        },
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "schemas": _component_schemas(),
            "messages": _messages(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "`vx_live_…` or `vx_test_…`"}
            },
        },
    }


def _component_schemas() -> Json:
    frames = list(dict.fromkeys((*TO_READER, *FROM_READER)))
    structs: list[type] = [
        *EVENT_DATA.values(),
        Erased,
        Withheld,
        PublicEvent,
        VolatileEvent,
        CloudEvent,
        *frames,
    ]
    _, defs = _described(structs, ref_template=REF)
    return defs | {_envelope_name(kind): _envelope(kind) for kind in EVENT_TYPES.values()}


def _envelope(kind: EventType) -> Json:
    """The envelope of one type: which one is told by `type`, which data by that."""
    data: Json = {"$ref": REF.format(name=EVENT_DATA[kind.name].__name__)}
    if instead := _instead(kind):
        data = {"anyOf": [data, *({"$ref": REF.format(name=s.__name__)} for s in instead)]}
    envelope = PublicEvent if kind.durable else VolatileEvent
    return {
        "allOf": [
            {"$ref": REF.format(name=envelope.__name__)},
            {"type": "object", "properties": {"type": {"const": kind.name}, "data": data}},
        ]
    }


def _envelope_name(kind: EventType) -> str:
    return EVENT_DATA[kind.name].__name__ + "Event"


def _messages() -> Json:
    events = {
        kind.name: {
            "name": kind.name,
            "title": kind.name,
            "summary": (EVENT_DATA[kind.name].__doc__ or "").split("\n")[0],
            "contentType": "application/json",
            "payload": {"$ref": REF.format(name=_envelope_name(kind))},
        }
        for kind in EVENT_TYPES.values()
    }
    frames = {
        f"frame.{_tag(struct)}": {
            "name": _tag(struct),
            "summary": (struct.__doc__ or "").split("\n")[0],
            "payload": {"$ref": REF.format(name=struct.__name__)},
        }
        for struct in (*TO_READER, *FROM_READER)
    }
    cloud = {
        "name": "cloudevent",
        "summary": "Any durable or volatile event with `format=cloudevents`.",
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": REF.format(name=CloudEvent.__name__)},
    }
    return events | frames | {"cloudevent": cloud}


def _channels() -> Json:
    durable = [t for t, kind in EVENT_TYPES.items() if kind.durable]
    key = [{"$ref": "#/components/securitySchemes/key"}]
    frames = sorted({f"frame.{_tag(s)}" for s in (*TO_READER, *FROM_READER)})
    streams = {
        "description": "`id` is the cursor; a volatile event has none. `Last-Event-ID` or `cursor` goes on behind it.",
        "messages": _refs([*EVENT_TYPES, "cloudevent"]),
        "x-security": key,
    }
    return {
        "webhook": {
            "address": None,
            "description": "POST to an endpoint of the project, signed (Standard Webhooks); `webhook-id` is the event's id.",
            "messages": _refs(durable),
        },
        "stream": {"address": "/v1/events/stream", **streams},
        "callStream": {
            "address": "/v1/calls/{call_id}/events/stream",
            "parameters": {"call_id": {"description": "A `call_` id."}},
            **streams,
        },
        "socket": {
            "address": "/v1/events/ws",
            "description": "JSON text frames. The reader subscribes first, and acknowledges.",
            "messages": _refs(frames),
            "x-security": key,
        },
    }


def _operations() -> Json:
    def operation(action: str, channel: str, names: list[str], summary: str) -> Json:
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
        }

    durable = [t for t, kind in EVENT_TYPES.items() if kind.durable]
    every = [*EVENT_TYPES, "cloudevent"]
    return {
        "deliver": operation("send", "webhook", durable, "Each event, once per endpoint, in the order of its call."),
        "stream": operation("send", "stream", every, "The project's events as they become durable."),
        "streamCall": operation("send", "callStream", every, "One call's events as they become durable."),
        "tell": operation(
            "send", "socket", [f"frame.{_tag(s)}" for s in TO_READER], "What this side says on the socket."
        ),
        "hear": operation(
            "receive", "socket", [f"frame.{_tag(s)}" for s in FROM_READER], "What the reader says on the socket."
        ),
    }  # fmt: skip


def _refs(names: list[str]) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _tag(struct: type[msgspec.Struct]) -> str:
    return str(struct.__struct_config__.tag)
