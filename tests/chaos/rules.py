"""What must hold of every history, one function per rule. Pure; none asks production code whether it did well.

`check` gives the violations. A call whose end cannot be decided yet (its grants have not expired, and an edge that may hold
it cannot be asked) is no violation: `Call.waiting` says so.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.chaos.history import Call, Event, History, Violation

FINAL = "call.ended"
FINAL_STATES = frozenset({"completed", "failed", "busy", "no_answer", "canceled"})
TOKEN = re.compile(r"\bc\d+\.[0-9a-z.]+")

Rule = Callable[[History], Iterator[Violation]]


def check(history: History) -> list[Violation]:
    return [violation for rule in RULES for violation in rule(history)]


def tokens_in(value: Any) -> list[str]:
    """Every token in the texts of a JSON value, in order."""
    match value:
        case str():
            return TOKEN.findall(value)
        case dict():
            return [t for part in value.values() for t in tokens_in(part)]
        case list():
            return [t for part in value for t in tokens_in(part)]
    return []


def created_once(history: History) -> Iterator[Violation]:
    """One create, however often it was sent, is one call."""
    for name, times in Counter(c.name for c in history.calls).items():
        if times > 1:
            yield Violation("created_once", "", f"{name} was created {times} times")


def dense(history: History) -> Iterator[Violation]:
    """I2: 1..k, and the call knows its k."""
    for call in history.calls:
        numbers = [e.seq for e in call.events]
        if numbers != list(range(1, len(numbers) + 1)):
            yield Violation("dense", call.id, f"sequence numbers are {numbers}")
        elif call.seq != len(numbers):
            yield Violation("dense", call.id, f"the call stands at {call.seq}, its log at {len(numbers)}")


def once(history: History) -> Iterator[Violation]:
    """I5: an event, by its id or by its origin, stands in the log once."""
    times = Counter(e.id for c in history.calls for e in c.events)
    for call in history.calls:
        for event in call.events:
            if times[event.id] > 1:
                yield Violation("once", call.id, f"{event.id} is in the log {times[event.id]} times")
        for origin, count in Counter(e.origin for e in call.events if e.origin is not None).items():
            if count > 1:
                yield Violation(
                    "once", call.id, f"epoch {origin[0]} n {origin[1]} is in the log {count} times"
                )


def epochs(history: History) -> Iterator[Violation]:
    """I1: epochs ascend with seq, and each has one owner."""
    for call in history.calls:
        numbers = [e.epoch for e in call.events]
        if numbers != sorted(numbers):
            yield Violation("epochs", call.id, f"epochs by seq are {numbers}")
        owners: dict[int, set[str | None]] = defaultdict(set)
        for event in call.events:
            if event.origin is not None and event.type != FINAL:
                owners[event.epoch].add(event.region)
        for epoch, regions in owners.items():
            if len(regions) > 1:
                yield Violation(
                    "epochs", call.id, f"epoch {epoch} was written from {sorted(map(str, regions))}"
                )


def one_final(history: History) -> Iterator[Violation]:
    """I11: exactly one final event, the last; what REST has once answered of the end stays."""
    for call in history.calls:
        finals = [e for e in call.events if e.type == FINAL]
        if not finals and call.waiting:
            continue
        if len(finals) != 1 or call.events[-1].type != FINAL or call.state not in FINAL_STATES:
            types = [e.type for e in call.events]
            yield Violation("one_final", call.id, f"{len(finals)} final events, state {call.state}: {types}")
            continue
        reason = finals[0].data.get("end_reason")
        others = {r for r in (*call.ends_seen, call.end_reason) if r != reason}
        if others:
            yield Violation(
                "one_final", call.id, f"ended as {reason}, and REST said {sorted(map(str, others))}"
            )


def acked_to_callers(history: History) -> Iterator[Violation]:
    """I3: all of an owner's numbers that a caller was told are durable are in the log.

    A number that is not there under its own origin was given up as lost, or was an adopted event, which keeps the origin
    it had: those are the numbers 2, 3, … of a later owner, right behind the takeover.
    """
    for call in history.calls:
        newest: dict[int, int] = {}
        for epoch, n in call.acked:
            newest[epoch] = max(n, newest.get(epoch, 0))
        own = {e.origin for e in call.events if e.origin is not None}
        for epoch, acked_n in newest.items():
            missing = [
                n for n in range(1, acked_n + 1) if (epoch, n) not in own and not _given_up(call, epoch, n)
            ]
            adopted = epoch > 1 and missing == list(range(2, 2 + len(missing)))
            if missing and not adopted:
                yield Violation(
                    "acked_to_callers", call.id, f"epoch {epoch}: acknowledged {acked_n}, missing {missing}"
                )


def _given_up(call: Call, epoch: int, n: int) -> bool:
    return any(
        e.type == "events.lost" and e.data.get("epoch") == epoch and e.data["from_n"] <= n <= e.data["to_n"]
        for e in call.events
    )


def acked_to_backends(history: History) -> Iterator[Violation]:
    """I3: a tool call that was acknowledged is in the log, up to the seq that was named; so is, in the order in which it was
    said, everything that the backend had said on that socket before, but for what the log says was given up."""
    calls = {c.name: c for c in history.calls}
    at = {c.name: _places(c) for c in history.calls}
    said: dict[str, list[str]] = defaultdict(list)
    checked: dict[str, int] = defaultdict(int)
    for noted in history.noted:
        if noted.kind in ("said", "tool"):
            said[noted.socket].append(noted.token)
        if noted.kind != "acked":
            continue
        call = calls.get(noted.call)
        if call is None:
            yield Violation("acked_to_backends", "", f"{noted.token} is of a call that does not exist")
            continue
        places = at[noted.call]
        spoken = said[noted.socket]
        if noted.token not in spoken:
            yield Violation(
                "acked_to_backends", call.id, f"{noted.token} was acknowledged on a socket that never said it"
            )
            continue
        until = spoken.index(noted.token) + 1
        fresh = spoken[checked[noted.socket] : until]
        checked[noted.socket] = max(until, checked[noted.socket])
        lost = [t for t in fresh if t not in places]
        if len(lost) > _numbers_given_up(call):
            yield Violation(
                "acked_to_backends", call.id, f"{noted.token} was acknowledged, {lost} are not in the log"
            )
            continue
        if places[noted.token] > noted.seq:
            yield Violation(
                "acked_to_backends", call.id,
                f"{noted.token} was acknowledged at seq {noted.seq} and stands at {places[noted.token]}",
            )  # fmt: skip
        order = [places[t] for t in spoken[:until] if t in places]
        if order != sorted(order):
            yield Violation(
                "acked_to_backends",
                call.id,
                f"said before {noted.token}, in another order in the log: {order}",
            )


def _numbers_given_up(call: Call) -> int:
    return sum(e.data["to_n"] - e.data["from_n"] + 1 for e in call.events if e.type == "events.lost")


def _places(call: Call) -> dict[str, int]:
    """Token → seq of the first event that holds it."""
    places: dict[str, int] = {}
    for event in call.events:
        for token in tokens_in(event.data):
            places.setdefault(token, event.seq)
    return places


def prefix_reads(history: History) -> Iterator[Violation]:
    """I4: every look at a call's events is the beginning of its log; a later one never shows less."""
    logs = {c.id: [(e.seq, e.id) for e in c.events] for c in history.calls}
    by_call: dict[str, list[Any]] = defaultdict(list)
    for read in history.reads:
        log = logs.get(read.call, [])
        if read.events != log[: len(read.events)]:
            yield Violation(
                "prefix_reads",
                read.call,
                f"a read gave {[s for s, _ in read.events]}, not the log's beginning",
            )
        by_call[read.call].append(read)
    for call, reads in by_call.items():
        finished = sorted(reads, key=lambda r: r.ended_s)
        for read in reads:
            before = [r for r in finished if r.ended_s <= read.began_s]
            most = max((len(r.events) for r in before), default=0)
            if len(read.events) < most:
                yield Violation(
                    "prefix_reads", call, f"a read gave {len(read.events)} events where {most} had been seen"
                )


def streams(history: History) -> Iterator[Violation]:
    """I4: each stream gives every event of every call once, in order, over all its reconnects."""
    logs = {c.id: [(e.seq, e.id) for e in c.events] for c in history.calls}
    for reader, seen in history.streams.items():
        got: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for call, seq, event_id in seen:
            got[call].append((seq, event_id))
        for call in logs.keys() | got.keys():
            if got[call] != logs.get(call, []):
                numbers, wanted = [s for s, _ in got[call]], len(logs.get(call, []))
                yield Violation("streams", call, f"{reader} got {numbers}, the log has 1 to {wanted}")


def effects(history: History) -> Iterator[Violation]:
    """I5, I6: an effect happens at most once, and the log has the tool call that it followed from."""
    calls = {c.name: c for c in history.calls}
    times = Counter((n.call, n.token) for n in history.noted if n.kind == "effect")
    for (name, token), count in times.items():
        call = calls.get(name)
        found = call is not None and any(
            e.type == "tool.called" and e.data.get("id") == token for e in call.events
        )
        call_id = call.id if call is not None else ""
        if count > 1:
            yield Violation("effects", call_id, f"{token} took effect {count} times")
        if not found:
            yield Violation("effects", call_id, f"{token} took effect, and its tool.called is not in the log")


def webhooks(history: History) -> Iterator[Violation]:
    """I6: every event comes at least once, genuine and as the log has it; twice only under the same id; in the order of its
    call, but for those that say they overtook."""
    if history.hooks_refused:
        yield Violation("webhooks", "", f"not genuine: {Counter(history.hooks_refused)}")
    logs = {c.id: {e.seq: e for e in c.events} for c in history.calls}
    came: dict[str, dict[int, str]] = defaultdict(dict)
    newest: dict[str, int] = defaultdict(int)
    for hook in history.hooks:
        call, seq = hook.event["call_id"], hook.event["seq"]
        event = logs.get(call, {}).get(seq)
        if (
            event is None
            or (hook.message_id, hook.event["id"]) != (event.id, event.id)
            or not _same(hook.event, event)
        ):
            yield Violation(
                "webhooks", call, f"webhook {hook.message_id} (seq {seq}) is not what the log has"
            )
            continue
        first = seq not in came[call]
        came[call][seq] = hook.message_id
        if first and seq < newest[call] and not hook.overtook:
            yield Violation("webhooks", call, f"seq {seq} came after {newest[call]}")
        if first and not hook.overtook:
            newest[call] = max(seq, newest[call])
    for call, log in logs.items():
        missing = sorted(log.keys() - came[call].keys())
        if missing:
            yield Violation("webhooks", call, f"seq {missing} never came")


def _same(said: dict[str, Any], event: Event) -> bool:
    return (said["type"], said["epoch"], said["data"]) == (event.type, event.epoch, event.data)


def conversation(history: History) -> Iterator[Violation]:
    """The conversation is the fold of the log."""
    for call in history.calls:
        folded = fold(call.events)
        got = [_turn(t) for t in call.turns]
        if got != folded:
            yield Violation("conversation", call.id, f"REST has {got}, the log {folded}")


def fold(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What docs/reference/webhooks-and-events.md says of the conversation, once more."""
    turns: list[dict[str, Any]] = []
    for event in events:
        data = event.data
        match event.type:
            case "turn.ended" | "turn.interrupted":
                cut = event.type == "turn.interrupted"
                if data.get("text") or cut:
                    turns.append(
                        _turn({"role": data["role"], "text": data.get("text", ""), "interrupted": cut})
                    )
            case "tool.called":
                turns.append(_turn({"role": "tool"} | {k: data.get(k) for k in ("id", "name", "arguments")}))
            case "tool.result":
                for turn in reversed(turns):
                    if turn["role"] == "tool" and turn["id"] == data.get("id"):
                        turn["result"] = data.get("result") if turn["result"] is None else turn["result"]
                        break
    return turns


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "text": "",
        "interrupted": False,
        "id": None,
        "name": None,
        "arguments": None,
        "result": None,
    }
    return {"role": turn["role"]} | {k: turn.get(k, default) for k, default in empty.items()}


def apart(history: History) -> Iterator[Violation]:
    """Nothing that was said on one call stands in another, in its log or in what a resumed backend is told."""
    for call in history.calls:
        foreign = [t for e in call.events for t in tokens_in(e.data) if t.split(".")[0] != call.name]
        if foreign:
            yield Violation("apart", call.id, f"{call.name} holds {foreign}")
    ids = {c.name: c.id for c in history.calls}
    for noted in history.noted:
        foreign = [t for t in (*noted.tokens, *noted.results) if t.split(".")[0] != noted.call]
        if foreign:
            yield Violation(
                "apart", ids.get(noted.call, ""), f"the backend of {noted.call} was told {foreign}"
            )


def remembered(history: History) -> Iterator[Violation]:
    """What a resumed backend is told stands in the order of the log, each once."""
    at = {c.name: (c.id, _places(c)) for c in history.calls}
    for noted in history.noted:
        if noted.kind != "resumed" or noted.call not in at:
            continue
        call, places = at[noted.call]
        order = [places[t] for t in dict.fromkeys(noted.tokens) if t in places]
        if order != sorted(order):
            yield Violation("remembered", call, f"a resumed backend was told the turns of seq {order}")


def digits(history: History) -> Iterator[Violation]:
    """I5: what was pressed is in the log at most once, in the order in which it was pressed."""
    for call in history.calls:
        stored = "".join(str(e.data.get("digit")) for e in call.events if e.type == "dtmf.received")
        left = iter(call.pressed)
        if not all(d in left for d in stored):
            yield Violation("digits", call.id, f"pressed {call.pressed}, stored {stored}")


RULES: tuple[Rule, ...] = (
    created_once,
    dense,
    once,
    epochs,
    one_final,
    acked_to_callers,
    acked_to_backends,
    prefix_reads,
    streams,
    effects,
    webhooks,
    conversation,
    apart,
    remembered,
    digits,
)
