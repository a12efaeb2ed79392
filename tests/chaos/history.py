"""What was seen of a run, by everybody who saw something: callers, backends, readers, webhooks, and the log at the end.

Decides nothing: `rules` says what must hold of it. It can be written to a file and read again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """As the log had it at the end. `origin`: (epoch, n) of whoever first numbered it, where an edge did."""

    seq: int
    id: str
    type: str
    epoch: int
    region: str | None
    data: dict[str, Any]
    origin: tuple[int, int] | None = None


@dataclass(slots=True)
class Call:
    """One call. `name`: begins every token that is said on it. `acked`: (epoch, n) that its caller was told is durable.
    `ends_seen`: end reasons that REST answered while the run went on. `waiting`: why the reconciler cannot end it yet."""

    id: str
    name: str
    state: str = ""
    seq: int = 0
    end_reason: str | None = None
    events: list[Event] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    acked: list[tuple[int, int]] = field(default_factory=list)
    pressed: str = ""
    ends_seen: list[str] = field(default_factory=list)
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """One look at a call's events over REST, from the first on. Times are of one clock."""

    call: str
    began_s: float
    ended_s: float
    events: list[tuple[int, str]]
    """(seq, id)"""


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook as it arrived; they are kept in that order."""

    message_id: str
    overtook: bool
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Noted:
    """One line of a backend's record. `kind`: ``said`` (an event will follow from it), ``tool`` (said, and an acknowledgement will
    come), ``acked``, ``effect`` or ``resumed`` (`tokens`: of the turns it was told, in order; `results`: of their tools).
    `socket`: one socket of one call."""

    kind: str
    call: str
    socket: str
    token: str = ""
    seq: int = 0
    tokens: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)


@dataclass(slots=True)
class History:
    calls: list[Call] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    streams: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    """Reader → (call, seq, id) in the order they came."""
    hooks: list[Hook] = field(default_factory=list)
    hooks_refused: list[str] = field(default_factory=list)

    def of_call(self, call: str) -> dict[str, Any]:
        """Everything about one call, to be printed."""
        name = next((c.name for c in self.calls if c.id == call), "")
        return {
            "call": [asdict(c) for c in self.calls if c.id == call],
            "noted": [asdict(n) for n in self.noted if n.call == name],
            "reads": [asdict(r) for r in self.reads if r.call == call],
            "streams": {
                reader: [list(e) for e in seen if e[0] == call] for reader, seen in self.streams.items()
            },
            "hooks": [asdict(h) for h in self.hooks if h.event.get("call_id") == call],
        }


@dataclass(frozen=True, slots=True)
class Violation:
    """`call`: its id, or empty where it is about several."""

    rule: str
    call: str
    detail: str
