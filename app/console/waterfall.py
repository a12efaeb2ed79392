"""A call's timeline as a drawing: who had it when, its states, answers stage by stage, failovers, webhooks. Pure.

Decides the scale and what is drawn where, in hundredths of the width; what it looks like is the template's. Times are those of the
entries; what comes long after the end (a webhook that is tried again for hours) is in the list, and not in the drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.calls.timeline_shapes import Timeline, TimelineDelivery, TimelineEntry, TimelineMove, TimelineOwner
from app.console.entries import (
    STAGES,
    answer,
    clock,
    data_of,
    length,
    moment_of,
    short,
    stages_of,
    total_of,
    went,
    why,
    words,
)

AFTER_END_S = 2.0
"""So much of what follows the end is drawn, or a tenth of the call."""
BARS_MAX = 100
"""In a lane; of more, one in so many is drawn, and whatever went wrong."""
TURNS_MAX = 50
"""The newest are shown."""
STAGED_MAX = 25
"""So many answers are drawn stage by stage, more as one piece each."""
TICKS_MAX = 6
STEPS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
NAMED_FROM = 9.0
"""A bar that is that wide has room for its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """`x`, `width`: in hundredths of the drawing. `tone`: a class of the style sheet. `title`: read on it."""

    x: float
    width: float
    tone: str
    title: str
    name: str = ""

    @property
    def named(self) -> bool:
        return bool(self.name) and self.width >= NAMED_FROM


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    name: str
    bars: list[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer. `stages`: as bars of a line of their own, to the scale of the slowest answer of the call."""

    at: str
    offset_s: float
    utterance: int
    total_ms: int
    exceeded: list[str]
    stages: list[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One entry in words."""

    offset_s: float
    at: str
    kind: str
    what: str
    facts: list[tuple[str, str]]
    tone: str = ""
    epoch: int | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    lanes: list[Lane]
    ticks: list[Tick]
    turns: list[Turn]
    lines: list[Line]
    left_out: int
    turns_left_out: int
    used_stages: list[str]


def waterfall(found: Timeline, now: datetime, *, lines_max: int) -> Waterfall:
    scale = _Scale.of(found, now)
    events = [e for e in found.entries if e.kind == "event"]
    turns = _turns(events, scale)
    lanes = [
        Lane(name="State", bars=_states(events, scale)),
        Lane(name="Edge", bars=_owners(events, scale)),
        Lane(name="Answers", bars=_answers(events, scale)),
        Lane(name="Moved, lost", bars=[*_gaps(events, scale), *_moves(found.entries, scale)]),
        Lane(name="Webhooks", bars=_deliveries(found.entries, scale)),
    ]
    half = lines_max // 2
    entries: Sequence[TimelineEntry] = found.entries
    left_out = max(0, len(entries) - lines_max)
    if left_out:
        entries = [*entries[:half], *entries[-half:]]
    return Waterfall(
        lanes=[lane for lane in lanes if lane.bars],
        ticks=scale.ticks(),
        turns=turns[-TURNS_MAX:],
        turns_left_out=max(0, len(turns) - TURNS_MAX),
        lines=[_line(entry, scale) for entry in entries],
        left_out=left_out,
        used_stages=[s for s in STAGES if any(b.name == s for t in turns for b in t.stages)],
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    start: datetime
    end: datetime
    last_s: float

    @classmethod
    def of(cls, found: Timeline, now: datetime) -> _Scale:
        start = moment_of(found.created_at)
        end = moment_of(found.ended_at) if found.ended_at else max(now, start)
        length = (end - start).total_seconds()
        after = max(AFTER_END_S, length / 10) if found.ended_at else 0.0
        latest = max((moment_of(e.at) for e in found.entries), default=end)
        drawn = min(max((latest - start).total_seconds(), length), length + after)
        return cls(start, end, max(drawn, 0.5))

    def offset(self, at: str) -> float:
        return (moment_of(at) - self.start).total_seconds()

    def bar(self, from_s: float, to_s: float, *, tone: str, title: str, name: str = "") -> Bar | None:
        """None where it lies behind the end."""
        left = max(0.0, from_s)  # an edge's clock may be a little behind ours
        if left > self.last_s:
            return None
        right = max(left, min(self.last_s, to_s))
        x, width = 100 * left / self.last_s, 100 * (right - left) / self.last_s
        return Bar(x=round(x, 3), width=round(max(width, 0.25), 3), tone=tone, title=title, name=name)

    def ticks(self) -> list[Tick]:
        step = next((s for s in STEPS_S if self.last_s / s <= TICKS_MAX), STEPS_S[-1])
        found: list[Tick] = []
        at = 0.0
        while at <= self.last_s and len(found) <= 2 * TICKS_MAX:
            found.append(Tick(x=round(100 * at / self.last_s, 3), text=clock(at)))
            at += step
        return found


def _states(events: list[TimelineEntry], scale: _Scale) -> list[Bar]:
    steps = [(scale.offset(e.at), str(e.state)) for e in events if isinstance(e.state, str)]
    ends = [at for at, _ in steps[1:]] + [(scale.end - scale.start).total_seconds()]
    return _kept(
        scale.bar(
            at, end, tone=f"state-{state}", title=f"{words(state)}, {length(end - at)}", name=words(state)
        )
        for (at, state), end in zip(steps, ends, strict=False)
        if end > at
    )


def _owners(events: list[TimelineEntry], scale: _Scale) -> list[Bar]:
    steps = [(scale.offset(e.at), e.owner) for e in events if isinstance(e.owner, TimelineOwner)]
    ends = [at for at, _ in steps[1:]] + [(scale.end - scale.start).total_seconds()]
    return _kept(
        scale.bar(
            at,
            end,
            tone=f"epoch-{o.epoch % 4}",
            title=f"epoch {o.epoch}: {o.region or '?'}, {why(o.why)}, {length(end - at)}",
            name=f"{o.epoch} {o.region or ''}",
        )
        for (at, o), end in zip(steps, ends, strict=False)
    )


def _answers(events: list[TimelineEntry], scale: _Scale) -> list[Bar]:
    found: list[Bar | None] = []
    answered = [event for event in events if event.type == "turn.answered"]
    for event in answered:
        to = scale.offset(event.at)
        at = to - total_of(event) / 1000
        if len(answered) > STAGED_MAX:
            found.append(scale.bar(at, to, tone="stage-backend", title=f"answered in {total_of(event)} ms"))
            continue
        for stage, ms in stages_of(event):
            title = f"{words(stage)}: {ms} ms of {total_of(event)} ms"
            found.append(scale.bar(at, at + ms / 1000, tone=f"stage-{stage}", title=title))
            at += ms / 1000
    return _kept(found)


def _gaps(events: list[TimelineEntry], scale: _Scale) -> list[Bar]:
    """From when the call was given up by an edge, or its backend was lost, until audio flowed again."""
    found: list[Bar | None] = []
    since: tuple[float, str] | None = None
    backend = False
    for event in events:
        at = scale.offset(event.at)
        if event.type == "call.reconnecting":
            reason = str(data_of(event).get("reason", ""))
            since, backend = (at, why(reason)), reason == "agent_lost"
        elif since is not None and (
            event.type in ("call.reconnected", "call.ended") or (backend and event.type == "agent.connected")
        ):
            found.append(scale.bar(since[0], at, tone="gap", title=f"{since[1]}: {length(at - since[0])}"))
            since = None
        elif event.type == "call.moved":
            found.append(scale.bar(at, at, tone="moved", title="moved by plan"))
    if since is not None:
        found.append(scale.bar(since[0], scale.last_s, tone="gap", title=since[1]))
    return _kept(found)


def _moves(entries: list[TimelineEntry], scale: _Scale) -> list[Bar]:
    return _kept(
        scale.bar(
            scale.offset(e.at),
            scale.offset(e.move.done_at) if e.move.done_at else scale.last_s,
            tone="move",
            title=f"asked to move by the {e.move.by}: {e.move.outcome or 'under way'}",
        )
        for e in entries
        if isinstance(e.move, TimelineMove)
    )


def _deliveries(entries: list[TimelineEntry], scale: _Scale) -> list[Bar]:
    found: list[Bar | None] = []
    for entry in entries:
        if not isinstance(entry.delivery, TimelineDelivery):
            continue
        one, at = entry.delivery, scale.offset(entry.at)
        title = f"{one.event_type or 'event'} #{one.event_seq}, attempt {one.attempt}: {answer(one)}, {one.duration_ms} ms"
        found.append(
            scale.bar(at, at + one.duration_ms / 1000, tone="good" if went(one) else "bad", title=title)
        )
    return _kept(found)


def _turns(events: list[TimelineEntry], scale: _Scale) -> list[Turn]:
    over = {
        data_of(e).get("utterance"): [str(s) for s in data_of(e).get("exceeded", [])]
        for e in events
        if e.type == "turn.budget_exceeded"
    }
    answered = [e for e in events if e.type == "turn.answered"]
    slowest = max((total_of(e) for e in answered), default=0) or 1
    found = []
    for event in answered:
        at, bars = 0.0, []
        for stage, ms in stages_of(event):
            width = 100 * ms / slowest
            title = f"{words(stage)}: {ms} ms"
            bars.append(
                Bar(x=round(at, 3), width=round(width, 3), tone=f"stage-{stage}", title=title, name=stage)
            )
            at += width
        utterance = int(data_of(event).get("utterance", 0))
        found.append(
            Turn(
                at=event.at,
                offset_s=scale.offset(event.at),
                utterance=utterance,
                total_ms=total_of(event),
                exceeded=over.get(utterance, []),
                stages=bars,
            )
        )
    return found


def _line(entry: TimelineEntry, scale: _Scale) -> Line:
    offset_s, at = scale.offset(entry.at), entry.at
    if isinstance(entry.delivery, TimelineDelivery):
        one = entry.delivery
        facts = [
            ("endpoint", one.webhook_id),
            ("attempt", str(one.attempt)),
            ("took", f"{one.duration_ms} ms"),
        ]
        what = f"{one.event_type or 'event'} #{one.event_seq} sent: {answer(one)}"
        return Line(
            kind="webhook", what=what, facts=facts, tone="" if went(one) else "bad", offset_s=offset_s, at=at
        )
    if isinstance(entry.move, TimelineMove):
        move = entry.move
        what = f"asked to move by the {move.by}: {move.outcome or 'under way'}"
        return Line(
            kind="move",
            what=what,
            facts=[("from", move.from_edge), ("to", move.to_edge)],
            offset_s=offset_s,
            at=at,
        )
    data = dict(data_of(entry))
    facts = [(words(name), short(value)) for name, value in data.items() if value not in (None, {}, [])]
    if isinstance(entry.owner, TimelineOwner):
        facts.insert(0, ("edge", entry.owner.edge))
    tones = {
        "call.reconnecting": "bad",
        "agent.disconnected": "warn",
        "events.lost": "bad",
        "turn.budget_exceeded": "warn",
    }
    return Line(
        kind="event",
        what=str(entry.type),
        facts=facts,
        tone=tones.get(str(entry.type), ""),
        epoch=entry.epoch if isinstance(entry.epoch, int) else None,
        region=entry.region if isinstance(entry.region, str) else None,
        offset_s=offset_s,
        at=at,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------


def _kept(found: Iterable[Bar | None]) -> list[Bar]:
    bars = [bar for bar in found if bar is not None]
    if len(bars) <= BARS_MAX:
        return bars
    wrong = [bar for bar in bars if bar.tone in ("bad", "gap")][:BARS_MAX]
    others = [bar for bar in bars if bar.tone not in ("bad", "gap")]
    room = BARS_MAX - len(wrong)
    return wrong + others[:: -(-len(others) // room)] if room else wrong
