"""How far an utterance is, told once a second while it is played, and to nobody who looks for it later."""

from __future__ import annotations

import msgspec

from regions.edge.speech import AgentSpeech
from regions.wire.event_data import EVENT_DATA
from regions.wire.events import EVENT_TYPES

FRAME_MS = 20
SILENCE = b"\xff" * 160


def played(speech: AgentSpeech) -> list[dict[str, int]]:
    ticks = []
    while speech.active:
        popped = speech.pop()
        tick = speech.tick(popped) if popped is not None else None
        if tick is not None:
            ticks.append(msgspec.json.decode(tick))
    return ticks


def test_an_utterance_ticks_once_a_second() -> None:
    speech = AgentSpeech()
    speech.push(SILENCE * (2_500 // FRAME_MS))
    speech.mark("half-way")
    speech.push(SILENCE * (1_000 // FRAME_MS))
    speech.end()
    assert played(speech) == [
        {"utterance": 1, "offset_ms": 1_000},
        {"utterance": 1, "offset_ms": 2_000},
        {"utterance": 1, "offset_ms": 3_000},
    ]


def test_a_short_one_does_not() -> None:
    speech = AgentSpeech()
    for _ in range(3):
        speech.push(SILENCE * (980 // FRAME_MS))
        speech.end()
    assert played(speech) == []


def test_it_is_volatile_and_has_the_shape_that_is_documented() -> None:
    assert not EVENT_TYPES["playback.tick"].durable
    found = msgspec.convert({"utterance": 1, "offset_ms": 1_000}, EVENT_DATA["playback.tick"])
    assert msgspec.to_builtins(found) == {"utterance": 1, "offset_ms": 1_000}
