"""The rules of `make chaos`: a history in which all is well breaks none, and each way of going wrong breaks its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.history import Call, Event, History, Hook, Noted, Read
from tests.chaos.rules import check, tokens_in

ID = "call_1"


def event(
    seq: int, type_: str, data: dict[str, Any], epoch: int, origin: tuple[int, int] | None, region: str
) -> Event:
    return Event(seq, f"evt_{seq}", type_, epoch, region, data, origin)


def sound() -> History:
    """A call that moved once: number 4 of its first owner was adopted, number 5 died with it."""
    turn = {"role": "caller", "text": "c1.aa.1"}
    tool = {"id": "c1.aa.2", "name": "act", "arguments": {"of": "c1"}}
    events = [
        event(1, "call.created", {"metadata": {"name": "c1"}}, 1, None, "us-east"),
        event(2, "call.answered", {}, 1, (1, 1), "us-east"),
        event(3, "turn.ended", turn, 1, (1, 2), "us-east"),
        event(4, "tool.called", tool, 1, (1, 3), "us-east"),
        event(5, "call.reconnecting", {"reason": "silent"}, 2, (2, 1), "eu-west"),
        event(6, "tool.result", {"id": "c1.aa.2", "result": {"done": "c1.aa.3"}}, 2, (1, 4), "eu-west"),
        event(7, "dtmf.received", {"digit": "3"}, 2, (2, 3), "eu-west"),
        event(8, "call.ended", {"end_reason": "caller_hung_up"}, 4, (2, 4), "eu-west"),
    ]
    turns = [
        {"role": "caller", "text": "c1.aa.1", "at": "…"},
        {
            "role": "tool", "id": "c1.aa.2", "name": "act", "arguments": {"of": "c1"},
            "result": {"done": "c1.aa.3"}, "at": "…",
        },
    ]  # fmt: skip
    call = Call(
        ID, "c1", state="completed", seq=8, end_reason="caller_hung_up", events=events, turns=turns,
        acked=[(1, 2), (1, 3), (2, 3)], pressed="0123", ends_seen=["caller_hung_up"],
    )  # fmt: skip
    pairs = [(e.seq, e.id) for e in events]
    return History(
        calls=[call],
        noted=[
            Noted("said", "c1", "aa", "c1.aa.1"),
            Noted("tool", "c1", "aa", "c1.aa.2"),
            Noted("acked", "c1", "aa", "c1.aa.2", seq=4),
            Noted("effect", "c1", "aa", "c1.aa.2"),
            Noted("said", "c1", "aa", "c1.aa.3"),
            Noted("resumed", "c1", "bb", tokens=["c1.aa.1", "c1.aa.2"], results=["c1.aa.3"]),
        ],
        reads=[Read(ID, 1.0, 1.1, pairs[:3]), Read(ID, 2.0, 2.1, pairs)],
        streams={"follower": [(ID, seq, event_id) for seq, event_id in pairs]},
        hooks=[Hook(e.id, False, envelope(e)) for e in events],
    )


def envelope(e: Event) -> dict[str, Any]:
    return {"id": e.id, "type": e.type, "call_id": ID, "seq": e.seq, "epoch": e.epoch, "data": e.data}


def changed(history: History, at: int, /, **more: Any) -> None:
    """The log says otherwise, and so does everybody who reads it."""
    events = history.calls[0].events
    events[at - 1] = replace(events[at - 1], **more)
    pairs = [(e.seq, e.id) for e in events]
    history.reads = [Read(ID, r.began_s, r.ended_s, pairs[: len(r.events)]) for r in history.reads]
    history.streams = {"follower": [(ID, s, i) for s, i in pairs]}
    history.hooks = [Hook(e.id, False, envelope(e)) for e in events]


def another_call(history: History) -> None:
    history.calls.append(replace(history.calls[0], id="call_2", events=[], seq=0))


def second_region(history: History) -> None:
    changed(history, 3, region="ap-south")


def unanswered_create(history: History) -> None:
    history.calls.append(Call("call_2", "c2"))


def late_first_hook(history: History) -> None:
    history.hooks.append(history.hooks.pop(2))


def other_order(history: History) -> None:
    """Said after the tool call, and acknowledged with it: then it is not known to be in the log, and must come behind."""
    history.noted.insert(1, Noted("said", "c1", "aa", "c1.aa.3"))


def no_tool_in_the_log(history: History) -> None:
    changed(history, 4, type="transcript.final", data={"role": "caller", "text": "nothing"})


BROKEN: list[tuple[str, Callable[[History], Any]]] = [
    ("created_once", another_call),
    ("dense", lambda h: changed(h, 3, seq=4)),
    ("dense", lambda h: setattr(h.calls[0], "seq", 9)),
    ("once", lambda h: changed(h, 7, id="evt_3")),
    ("once", lambda h: changed(h, 7, origin=(1, 4))),
    ("epochs", lambda h: changed(h, 7, epoch=1)),
    ("epochs", second_region),
    ("one_final", lambda h: changed(h, 8, type="speech.stopped")),
    ("one_final", lambda h: changed(h, 7, type="call.ended")),
    ("one_final", lambda h: setattr(h.calls[0], "state", "in_progress")),
    ("one_final", lambda h: h.calls[0].ends_seen.append("edge_lost")),
    ("one_final", unanswered_create),
    ("acked_to_callers", lambda h: h.calls[0].acked.append((1, 5))),
    ("acked_to_callers", lambda h: changed(h, 3, origin=(1, 9))),
    ("acked_to_callers", lambda h: changed(h, 5, origin=(2, 9))),
    ("acked_to_backends", lambda h: h.noted.insert(0, Noted("said", "c1", "aa", "c1.aa.9"))),
    ("acked_to_backends", lambda h: h.noted.append(Noted("acked", "c1", "bb", "c1.aa.2", seq=4))),
    ("acked_to_backends", lambda h: h.noted.append(Noted("acked", "c9", "bb", "c9.aa.2", seq=4))),
    ("acked_to_backends", lambda h: h.noted.insert(2, Noted("acked", "c1", "aa", "c1.aa.2", seq=3))),
    ("acked_to_backends", other_order),
    ("prefix_reads", lambda h: h.reads.append(Read(ID, 3.0, 3.1, [(2, "evt_2")]))),
    ("prefix_reads", lambda h: h.reads.append(Read(ID, 3.0, 3.1, [(1, "evt_7")]))),
    ("prefix_reads", lambda h: h.reads.append(Read(ID, 3.0, 3.1, h.reads[0].events))),
    ("streams", lambda h: h.streams["follower"].pop(4)),
    ("streams", lambda h: h.streams["follower"].append((ID, 8, "evt_8"))),
    ("streams", lambda h: h.streams["follower"].append(("call_9", 1, "evt_9"))),
    ("effects", lambda h: h.noted.append(Noted("effect", "c1", "aa", "c1.aa.2"))),
    ("effects", no_tool_in_the_log),
    ("webhooks", lambda h: h.hooks.pop(4)),
    ("webhooks", lambda h: h.hooks.append(replace(h.hooks[2], message_id="evt_other"))),
    ("webhooks", lambda h: h.hooks_refused.append("bad_signature")),
    ("webhooks", lambda h: h.hooks[2].event.update(data={"role": "caller", "text": "other"})),
    ("webhooks", late_first_hook),
    ("conversation", lambda h: h.calls[0].turns.pop()),
    ("conversation", lambda h: h.calls[0].turns.reverse()),
    ("apart", lambda h: changed(h, 3, data={"role": "caller", "text": "c2.aa.1"})),
    ("apart", lambda h: h.noted.append(Noted("resumed", "c1", "cc", tokens=["c2.aa.1"]))),
    ("apart", lambda h: h.noted.append(Noted("resumed", "c1", "cc", results=["c2.aa.1"]))),
    ("remembered", lambda h: h.noted.append(Noted("resumed", "c1", "cc", tokens=["c1.aa.2", "c1.aa.1"]))),
    ("digits", lambda h: setattr(h.calls[0], "pressed", "012")),
]  # fmt: skip


def test_a_sound_history_breaks_no_rule() -> None:
    assert check(sound()) == []


@pytest.mark.parametrize(("rule", "spoil"), BROKEN)
def test_what_goes_wrong_is_told(rule: str, spoil: Callable[[History], Any]) -> None:
    history = sound()
    spoil(history)
    assert rule in {v.rule for v in check(history)}


def test_a_call_that_waits_for_its_grants_is_no_violation() -> None:
    history = sound()
    changed(history, 8, type="speech.stopped", data={})
    history.calls[0].waiting = "edge_lost: ['silent']"
    history.calls[0].state, history.calls[0].end_reason, history.calls[0].ends_seen = "in_progress", None, []
    assert check(history) == []


def test_numbers_that_were_given_up_need_not_be_there() -> None:
    history = sound()
    lost = {"epoch": 1, "from_n": 2, "to_n": 2, "reason": "spool"}
    changed(history, 3, type="events.lost", data=lost)
    history.calls[0].acked.append((1, 4))
    assert "acked_to_callers" not in {v.rule for v in check(history)}


def test_a_webhook_may_come_again_and_a_parked_one_late() -> None:
    history = sound()
    history.hooks.insert(6, history.hooks[2])
    assert check(history) == []
    parked = history.hooks.pop(4)
    history.hooks = [replace(h, overtook=h.event["seq"] > 5) for h in history.hooks]
    history.hooks.append(parked)
    assert check(history) == []


def test_tokens_are_found_wherever_they_are_said() -> None:
    said = {"a": ["c1.aa.1 and c22.b.3", {"b": "c1.aa.2"}], "c": 5, "d": "c1"}
    assert tokens_in(said) == ["c1.aa.1", "c22.b.3", "c1.aa.2"]
