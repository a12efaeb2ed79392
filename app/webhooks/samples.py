"""One example of the data of every durable event type: for test events, of calls that never were."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.clock import rfc3339
from app.ids import new_id
from regions.wire import ids
from regions.wire.events import EVENT_TYPES, FINAL_TYPE, PublicEvent

_TURN: dict[str, Any] = {"role": "caller", "text": "Where is my order 158?"}
_TAKEN = {"from_epoch": 1, "to_epoch": 2, "history": "snapshot"}
_ANSWERED: dict[str, Any] = {
    "utterance": 1,
    "total_ms": 850,
    "stages": {
        "capture": 20,
        "uplink": 30,
        "jitter": 40,
        "end_of_turn": 320,
        "backend": 390,
        "pacing": 20,
        "downlink": 30,
    },
}
_LINE: dict[str, Any] = {
    "quality": {
        "period_ms": 61200,
        "up": {"loss": 0.004, "jitter_ms": 3.1},
        "down": {"loss": 0.0, "jitter_ms": 2.4},
        "rtt_ms": 38,
        "mos": 4.37,
        "mos_min": 4.12,
    },
    "usage": {
        "caller_in_bytes": 262144,
        "caller_out_bytes": 198400,
        "agent_in_bytes": 1480200,
        "agent_out_bytes": 1530000,
        "caller_saved_bytes": 41800,
        "agent_saved_bytes": 0,
        "silence_saved_bytes": 41800,
    },
}
_EXAMPLES: dict[str, dict[str, Any]] = {
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
    "call.drilled": {
        "drill_id": "drl_01m88f12aqe00bjhtrdwbf9m1p",
        "kind": "edge.loss",
        "how": "closed",
        "from_region": "eu-west",
        "from_epoch": 1,
    },
    "call.quality": _LINE,
    "call.ended": {"end_reason": "caller_hung_up", **_LINE},
    "agent.connected": {"fallback": False, "resumed": False},
    "agent.disconnected": {"clean": True, "why": "closed", "code": 1000},
    "agent.hung_up": {"reason": "the order is placed"},
    "turn.ended": {**_TURN, "started_ms": 4200, "stopped_ms": 5600, "waited_ms": 320, "by": "silence"},
    "turn.interrupted": {"role": "agent", "text": "Your order", "utterance": 1, "offset_ms": 640},
    "turn.false_interruption": {"utterance": 1, "offset_ms": 640, "voiced_ms": 120, "held_ms": 300},
    "turn.answered": _ANSWERED,
    "turn.budget_exceeded": {**_ANSWERED, "exceeded": ["total"]},
    "transcript.final": _TURN,
    "tool.called": {"id": "t1", "name": "order", "arguments": {"number": 158}},
    "tool.result": {"id": "t1", "result": {"status": "shipped"}},
    "speech.started": {"offset_ms": 4200, "barge_in": False},
    "speech.stopped": {"offset_ms": 5600},
    "playback.started": {"utterance": 1},
    "playback.done": {"utterance": 1, "length_ms": 2300},
    "playback.interrupted": {"utterance": 1, "offset_ms": 640, "by": "caller"},
    "dtmf.received": {"digit": "5"},
    "events.lost": {"epoch": 1, "from_n": 7, "to_n": 9, "reason": "log_away"},
}

SAMPLES: dict[str, dict[str, Any]] = {
    name: _EXAMPLES.get(name, {}) for name, kind in EVENT_TYPES.items() if kind.durable
}


def sample(type_: str, cell: int, now: datetime) -> PublicEvent:
    """Of a call that never was. `type_`: one of `SAMPLES`."""
    return PublicEvent(
        id=ids.encode(ids.EVENT, new_id(cell)),
        type=type_,
        call_id=ids.encode(ids.CALL, new_id(cell)),
        seq=1,
        epoch=2 if type_ == FINAL_TYPE else 1,
        region="eu-west",
        timestamp=rfc3339(now),
        data=SAMPLES[type_],
    )
