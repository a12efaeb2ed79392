"""One example of the data of every durable event type: for test events, of calls that never were."""

from __future__ import annotations

from typing import Any

from regions.wire.events import EVENT_TYPES

_TURN: dict[str, Any] = {"role": "caller", "text": "Where is my order 158?"}
_TAKEN = {"from_epoch": 1, "to_epoch": 2, "history": "snapshot"}
_CONTENT: dict[str, dict[str, Any]] = {
    "call.created": {
        "caller": {"kind": "websocket"},
        "region": "eu-west",
        "standbys": ["us-east"],
        "metadata": {},
    },
    "call.answered": {"encoding": "pcm16", "sample_rate": 16000},
    "call.reconnecting": {**_TAKEN, "reason": "silent"},
    "call.moved": {**_TAKEN, "reason": "planned"},
    "call.reconnected": {"from_epoch": 1, "region": "us-east"},
    "call.ended": {"end_reason": "caller_hung_up"},
    "agent.connected": {"fallback": False, "resumed": False},
    "agent.disconnected": {"clean": True},
    "turn.ended": _TURN,
    "turn.interrupted": {"role": "agent", "text": "Your order", "utterance": "u1", "offset_ms": 640},
    "transcript.final": _TURN,
    "tool.called": {"id": "t1", "name": "order", "arguments": {"number": 158}},
    "tool.result": {"id": "t1", "result": {"status": "shipped"}},
    "speech.started": {"offset_ms": 4200, "barge_in": False},
    "speech.stopped": {"offset_ms": 5600},
    "playback.started": {"utterance": "u1"},
    "playback.done": {"utterance": "u1", "length_ms": 2300},
    "playback.interrupted": {"utterance": "u1", "offset_ms": 640, "by": "caller"},
    "dtmf.received": {"digit": "5"},
    "events.lost": {"epoch": 1, "from_n": 7, "to_n": 9, "reason": "log_away"},
}

SAMPLES: dict[str, dict[str, Any]] = {
    name: _CONTENT.get(name, {}) for name, kind in EVENT_TYPES.items() if kind.durable
}
