"""The two ways in which an edge speaks to a backend, read and written. Pure.

`voxplane.agent.v1` (docs/reference/agent-native.md) and Twilio Media Streams with the text beside it
(docs/reference/agent-twilio.md). Which one it is, the first message tells. Everything above this module works with PCM16 at the
wire's rate and with what is said beside the audio, and does not know which wire it is. What is not understood is ignored.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from voxplane.agent.audio import from_ulaw, to_ulaw

NATIVE = "voxplane.agent.v1"
RATES_HZ = (8_000, 16_000, 24_000, 48_000)
ID_CHARS_MAX = 64
SLICE_MS = 400
"""Of audio in one message."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An utterance that a failure has cut: the backend's name for it, and what of it the caller has heard."""

    id: str
    offset_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Which call this is. `epoch`: the higher one is right where two sockets of a call are open. `turns`: the conversation so far
    as the edge gives it, on a `resumed` socket. `parameters`: `agent.parameters` of the call."""

    call: str
    epoch: int = 1
    resumed: bool = False
    from_number: str = ""
    to_number: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    turns: list[Any] = field(default_factory=list)
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Started:
    start: Start


@dataclass(frozen=True, slots=True)
class Heard:
    """Of the caller, PCM16 at the wire's rate."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class Pressed:
    digit: str


@dataclass(frozen=True, slots=True)
class Marked:
    name: str


@dataclass(frozen=True, slots=True)
class Told:
    """What is said beside the audio."""

    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The call is over."""


@dataclass(frozen=True, slots=True)
class Ignored:
    pass


Incoming = Started | Heard | Pressed | Marked | Told | Stopped | Ignored
IGNORED = Ignored()
Message = str | bytes


class Wire(Protocol):
    """One socket's. `resumes`: whether an utterance can go on where a failure has cut it. What it has no word for is written as
    an empty message, and not sent."""

    rate_hz: int
    resumes: bool

    def read(self, message: Message) -> Incoming:
        """Never raises."""
        ...

    def opening(self) -> Message:
        """What shows the edge that this backend understands what is said beside the audio."""
        ...

    def discard_silence(self) -> Message:
        """Asks the edge to tell of silence instead of sending it."""
        ...

    def audio(self, pcm: bytes) -> Message: ...
    def text(self, type_: str, data: dict[str, Any]) -> Message: ...
    def utterance(self, id_: str, offset_ms: int) -> Message: ...
    def mark(self, name: str) -> Message: ...
    def clear(self) -> Message: ...

    def hangup(self, reason: str) -> Message:
        """Nothing where the socket's close says it."""
        ...


class UnknownWire(Exception):
    """The first message is of neither."""


def wire_of(first: Message) -> Wire:
    """Raises `UnknownWire`."""
    said = _object(first)
    if said.get("type") == "start" and said.get("protocol") == NATIVE:
        audio = _inner(said, "audio")
        rate_hz = audio.get("sample_rate")
        if audio.get("encoding") == "pcm16" and rate_hz in RATES_HZ:
            return NativeWire(rate_hz)
        raise UnknownWire(f"an audio format that is not of {NATIVE}")
    if said.get("event") in ("connected", "start"):
        return TwilioWire()
    raise UnknownWire("the first message is neither of voxplane.agent.v1 nor of Twilio Media Streams")


class NativeWire:
    resumes = True

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz

    def read(self, message: Message) -> Incoming:
        if isinstance(message, bytes):
            return Heard(message[: len(message) & ~1]) if len(message) > 1 else IGNORED
        said = _object(message)
        data = _inner(said, "data")
        match said.get("type"):
            case "start":
                return Started(self._start(said))
            case "dtmf":
                return Pressed(str(data.get("digit", "")))
            case "mark":
                return Marked(str(data.get("name", "")))
            case "stop":
                return Stopped()
            case str(type_):
                return Told(type_, data)
        return IGNORED

    def _start(self, said: dict[str, Any]) -> Start:
        turns, cut = _inner(said, "conversation").get("turns"), _inner(said, "cut")
        known = isinstance(cut.get("id"), str) and _is_number(cut.get("offset_ms"))
        return Start(
            call=str(said.get("call", "")),
            epoch=_number(said.get("epoch"), 1),
            resumed=said.get("resumed") is True,
            from_number=str(said.get("from", "")),
            to_number=str(said.get("to", "")),
            parameters=_strings(_inner(said, "parameters")),
            turns=turns if isinstance(turns, list) else [],
            cut=Cut(cut["id"], max(0, round(cut["offset_ms"]))) if known else None,
        )

    def opening(self) -> Message:
        return ""

    def discard_silence(self) -> Message:
        return _json({"type": "silence", "discard": True})

    def audio(self, pcm: bytes) -> Message:
        return pcm

    def text(self, type_: str, data: dict[str, Any]) -> Message:
        return _json({"type": type_, "data": data})

    def utterance(self, id_: str, offset_ms: int) -> Message:
        named: dict[str, Any] = {"type": "utterance", "id": id_}
        return _json(named | {"offset_ms": offset_ms} if offset_ms else named)

    def mark(self, name: str) -> Message:
        return _json({"type": "mark", "name": name})

    def clear(self) -> Message:
        return _json({"type": "clear"})

    def hangup(self, reason: str) -> Message:
        return _json({"type": "hangup", "reason": reason[:ID_CHARS_MAX]})


class TwilioWire:
    rate_hz = 8_000
    resumes = False

    def __init__(self) -> None:
        self._stream = ""

    def read(self, message: Message) -> Incoming:
        said = _object(message)
        match said.get("event"):
            case "media":
                ulaw = _payload(_inner(said, "media").get("payload"))
                return Heard(from_ulaw(ulaw)) if ulaw else IGNORED
            case "start":
                return Started(self._start(_inner(said, "start")))
            case "dtmf":
                return Pressed(str(_inner(said, "dtmf").get("digit", "")))
            case "mark":
                return Marked(str(_inner(said, "mark").get("name", "")))
            case "stop":
                return Stopped()
            case "voxplane":
                return Told(str(said.get("type", "")), _inner(said, "data"))
        return IGNORED

    def _start(self, start: dict[str, Any]) -> Start:
        self._stream = str(start.get("streamSid", ""))
        given = _strings(_inner(start, "customParameters"))
        turns = _object(given.pop("voxplane_conversation", "")).get("turns")
        epoch = given.pop("voxplane_epoch", "1")
        return Start(
            call=given.pop("voxplane_call", "") or str(start.get("callSid", "")),
            epoch=int(epoch) if epoch.isdecimal() else 1,
            resumed=given.pop("voxplane_resumed", "") == "true",
            from_number=given.get("from_number", ""),
            to_number=given.get("to_number", ""),
            parameters=given,
            turns=turns if isinstance(turns, list) else [],
        )

    def opening(self) -> Message:
        return self.text("hello", {})

    def discard_silence(self) -> Message:
        return ""

    def audio(self, pcm: bytes) -> Message:
        payload = base64.b64encode(to_ulaw(pcm)).decode()
        return self._event("media", media={"payload": payload})

    def text(self, type_: str, data: dict[str, Any]) -> Message:
        return self._event("voxplane", type=type_, data=data)

    def utterance(self, id_: str, offset_ms: int) -> Message:
        return ""

    def mark(self, name: str) -> Message:
        return self._event("mark", mark={"name": name})

    def clear(self) -> Message:
        return self._event("clear")

    def hangup(self, reason: str) -> Message:
        return ""

    def _event(self, event: str, **more: Any) -> str:
        return _json({"event": event, "streamSid": self._stream, **more})


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _object(message: Message) -> dict[str, Any]:
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _inner(said: dict[str, Any], name: str) -> dict[str, Any]:
    value = said.get(name)
    return value if isinstance(value, dict) else {}


def _strings(given: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in given.items() if isinstance(value, str)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _number(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _payload(payload: object) -> bytes:
    if not isinstance(payload, str):
        return b""
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        return b""
