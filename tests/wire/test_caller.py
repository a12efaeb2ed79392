"""The caller of the client library against edges that do what edges do when things go wrong, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection

from regions.wire import media as wire
from tests.support.edges import CALL, SNAPSHOT, ScriptedEdge, edges, ticket, until
from voxplane import ApiError, AsyncCaller, CallLost, CallRefused, Unavailable, messages

TONE = b"\x01\x02" * 320


class Tickets:
    """Stands where `AsyncClient` stands: answers a request for a new ticket with the next of `answers`."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    async def new_ticket(self, call_id: str, old: str) -> dict[str, Any]:
        self.asked.append((call_id, old))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"ticket": answer}


def caller_of(*reached: ScriptedEdge, tickets: Tickets | None = None, **more: Any) -> AsyncCaller:
    client: Any = tickets
    return AsyncCaller(ticket(*reached), client=client, **more)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may hold this process up for as long as an edge may be silent: here no silence is what is tested."""
    monkeypatch.setattr("voxplane.watch.PREPARE_AFTER_MS", 20_000)
    monkeypatch.setattr("voxplane.watch.TAKE_AFTER_MS", 25_000)


async def test_an_edge_that_answers_is_heard_and_gets_the_audio_back_with_its_newest_stamp() -> None:
    async with edges("a") as [a], caller_of(a) as caller:
        assert (caller.call_id, caller.epoch, caller.region) == (CALL, 1, "a")
        stamp = a.stamp
        await a.talk(TONE, utterance=3, offset_ms=40)
        frame = await caller.receive()
        assert frame is not None
        assert (frame.samples, frame.utterance, frame.offset_ms, frame.epoch) == (TONE, 3, 40, 1)
        await caller.send(TONE)
        await until(lambda: a.audio, "audio")
        kind, flags, sequence, echoed, utterance, offset_ms = wire.HEADER.unpack_from(a.audio[0])
        assert (kind, flags, sequence, utterance, offset_ms) == (wire.AUDIO, 0, 1, 3, 60)
        assert stamp <= echoed <= a.stamp
        assert a.audio[0][wire.HEADER_BYTES :] == TONE
        played = {"utterance": 3, "offset_ms": 60}
        await until(lambda: any(m["played"] == played for m in a.said("alive")), "a keep-alive that says so")
        await caller.dtmf("5")
        await caller.hangup()
        assert a.said("dtmf")[0]["digit"] == "5"
        assert (caller.end_reason, caller.over, caller.lost, caller.gaps) == (
            "caller_hung_up",
            True,
            False,
            [],
        )
        assert [await caller.receive(), await caller.receive()] == [None, None]


async def test_audio_of_any_length_goes_out_in_pieces_an_edge_takes() -> None:
    samples = bytes(range(256)) * 500
    async with edges("a") as [a], caller_of(a, sample_rate=48_000) as caller:
        await caller.send(samples)
        await until(lambda: sum(len(m) - wire.HEADER_BYTES for m in a.audio) == len(samples), "all the audio")
        assert all(wire.HEADER_BYTES < len(m) <= wire.BINARY_BYTES_MAX for m in a.audio)
        assert b"".join(m[wire.HEADER_BYTES :] for m in a.audio) == samples


async def test_filler_is_a_sign_of_life_and_not_the_agents_voice() -> None:
    async with edges("a") as [a], caller_of(a) as caller:
        await a.talk(TONE, utterance=1, offset_ms=40)
        await a.talk(TONE, utterance=0, flags=wire.FLAG_FILLER)
        await a.talk(TONE, utterance=1, offset_ms=60)
        heard = [await caller.receive() for _ in range(3)]
        assert [(f.filler, f.utterance) for f in heard if f] == [(False, 1), (True, 0), (False, 1)]
        assert caller._standing.played == messages.Position(utterance=1, offset_ms=80)
        assert caller.gaps == []


async def test_when_an_edge_goes_silent_a_standby_is_prepared_then_taken_with_all_it_needs() -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        await a.say(wire.Snapshot(epoch=1, n=7, sealed=SNAPSHOT))
        await a.say(wire.Acked(epoch=1, n=6))
        await a.talk(TONE, utterance=2, offset_ms=100)
        assert await caller.receive() is not None
        a.mute = True
        await until(lambda: caller.epoch == 2, "the take")
        assert b.modes == ["prepare"]
        [take] = b.said("take")
        resume = {
            "epoch": 1, "n": 6, "played": {"utterance": 2, "offset_ms": 120}, "snapshot": SNAPSHOT,
        }  # fmt: skip
        assert (take["reason"], take["resume"]) == ("silent", resume)
        assert b.said("attach")[0]["resume"] == resume
        await until(lambda: a.owner is not None and a.owner.close_code is not None, "the old side dropped")
        await b.talk(TONE, utterance=3)
        frame = await caller.receive()
        assert frame is not None and (frame.epoch, frame.utterance) == (2, 3)
        [gap] = caller.gaps
        assert (gap.from_epoch, gap.to_epoch, gap.reason) == (1, 2, "silent")
        assert gap.audio_gap_s is not None
        assert len(b.sockets) == 1


async def test_an_edge_that_is_heard_again_keeps_the_call_and_the_standby_is_let_go() -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        b.mute = True
        a.mute = True
        await until(lambda: b.modes == ["prepare"], "the prepare")
        a.mute = False
        await until(lambda: b.sockets[0].close_code is not None, "the standby let go")
        assert (caller.epoch, caller.gaps, b.said("take")) == (1, [], [])


async def test_an_edge_that_closes_without_a_word_is_left_at_once() -> None:
    async with edges("a", "b", "c") as [a, b, c], caller_of(a, b, c) as caller:
        await b.die()
        await a.die()
        await until(lambda: caller.epoch == 3, "the second standby")
        assert c.modes == ["take"]
        assert [(g.from_epoch, g.to_epoch, g.reason) for g in caller.gaps] == [(1, 3, "closed")]
        assert not caller.lost


async def test_an_attach_that_is_refused_for_good_is_an_error_with_the_edges_code() -> None:
    async with edges("a", "b") as [a, b]:
        a.refuse = wire.Refused(code="forged", detail="not ours", fix="use the ticket as it was issued")
        with pytest.raises(CallRefused) as refused:
            async with caller_of(a, b):
                pass
        assert refused.value.code == "forged"
        assert b.sockets == []


async def test_a_full_primary_sends_the_caller_to_its_standby() -> None:
    async with edges("a", "b") as [a, b]:
        a.refuse = wire.Refused(code="full", detail="full", next_url=b.url + "/v1/media")
        async with caller_of(a, b) as caller:
            assert (caller.epoch, caller.region, b.modes) == (2, "b", ["take"])


async def test_a_primary_that_is_not_there_or_says_nothing_is_replaced_before_the_call_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voxplane.caller.PRIMARY_WITHIN_S", 0.2)
    async with edges("a", "b") as [a, b]:
        await a.die()
        async with caller_of(a, b) as caller:
            assert caller.epoch == 2
    async with edges("a", "b") as [a, b]:
        a.mute = True
        async with caller_of(a, b) as caller:
            assert (caller.epoch, a.modes, b.modes) == (2, ["attach"], ["take"])


async def test_nobody_there_is_a_lost_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxplane.caller.BEGIN_WITHIN_S", 1.0)
    async with edges("a", "b") as [a, b]:
        await a.die()
        await b.die()
        with pytest.raises(CallLost):
            async with caller_of(a, b):
                pass


async def huge(socket: ServerConnection) -> None:
    await socket.send(b"\x01" * (2 << 20))


async def huge_text(socket: ServerConnection) -> None:
    await socket.send('{"type":"tick","stamp":1,"x":"' + "y" * (2 << 20) + '"}')


async def not_a_message(socket: ServerConnection) -> None:
    for text in (
        "", "{", "[]", "null", "5", '"x"', "{}", '{"type":7}', '{"type":"tick"}', '{"type":"tick","stamp":"soon"}',
        '{"type":"snapshot"}', '{"type":"acked","epoch":"x","n":1}', '{"type":"ended"}', '{"type":"unheard of"}',
        '{"type":"attached","epoch":1}', "[" * 100_000,
    ):  # fmt: skip
        await socket.send(text)
    for binary in (b"", b"\x01", b"\xff" * 20, b"\x00" * 400, b"\xff" * 400):
        await socket.send(binary)


async def impossible_stamps(socket: ServerConnection) -> None:
    for stamp in (-1, 2**64, 10**30):
        await socket.send(json.dumps({"type": "tick", "stamp": stamp}))
    header = wire.HEADER.pack(wire.AUDIO, 0, 65_535, 2**64 - 1, 2**32 - 1, 2**32 - 1)
    await socket.send(header + TONE)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("garbage", [not_a_message, impossible_stamps])
async def test_nonsense_from_an_edge_that_goes_on_changes_nothing(
    garbage: Callable[[ServerConnection], Awaitable[None]],
) -> None:
    async with edges("a", "b") as [a, b]:
        a.on_attached = garbage
        async with caller_of(a, b) as caller:
            await a.talk(TONE, utterance=9)
            while (frame := await caller.receive()) is not None and frame.utterance != 9:
                pass
            await caller.send(TONE)
            await until(lambda: a.audio and a.said("alive"), "audio and a keep-alive")
            assert (caller.epoch, caller.gaps, b.sockets) == (1, [], [])


async def test_an_edge_that_says_only_nonsense_is_silent() -> None:
    async with edges("a", "b") as [a, b]:
        async with caller_of(a, b) as caller:
            a.mute = True
            babble = asyncio.create_task(_babble(a))
            await until(lambda: caller.epoch == 2, "the take")
            babble.cancel()
            await asyncio.gather(babble, return_exceptions=True)
        assert b.said("take")[0]["reason"] == "silent"


async def _babble(edge: ScriptedEdge) -> None:
    assert edge.owner is not None
    while True:
        await edge.owner.send("blah")
        await edge.owner.send(b"\x07" * 300)
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("garbage", [huge, huge_text])
async def test_a_message_over_the_limit_ends_that_socket_and_the_standby_is_taken(
    garbage: Callable[[ServerConnection], Awaitable[None]],
) -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        assert a.owner is not None
        sending = asyncio.create_task(garbage(a.owner))
        await until(lambda: caller.epoch == 2, "the take")
        await asyncio.gather(sending, return_exceptions=True)
        assert b.modes == ["take"]


@pytest.mark.usefixtures("patient")
async def test_an_ended_call_is_over_and_nobody_is_taken() -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        notice = wire.Notice(type="call.reconnected", at_ms=5, data=msgspec.Raw(b'{"x":1}'))
        await a.say(notice)
        await a.say(wire.Clear(stamp=a.stamp, at=wire.Position()))
        await a.say(wire.Ended(end_reason="agent_hung_up"))
        assert await caller.receive() is None
        assert (caller.end_reason, caller.over, caller.lost) == ("agent_hung_up", True, False)
        assert caller.notices == [
            {"type": "notice", "event": "call.reconnected", "at_ms": 5, "data": {"x": 1}}
        ]
        assert len(caller.cleared) == 1
        await caller.send(TONE)
        await caller.hangup()
        assert (b.sockets, caller.gaps) == ([], [])


async def test_a_standby_that_knows_that_the_call_has_ended_is_believed() -> None:
    """Ended over the API, say, while its edge was lost: nobody is tried for half a minute."""
    async with edges("a", "b", "c") as [a, b, c], caller_of(a, b, c) as caller:
        b.refuse = wire.Refused(code="ended", detail="the call has ended", fix="create a new call")
        a.mute = True
        assert await caller.receive() is None
        assert (caller.over, caller.lost, caller.gaps, c.sockets) == (True, False, [], [])


async def test_a_caller_that_hangs_up_while_its_edge_dies_tells_the_next_one() -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        await a.die()
        await caller.hangup()
        assert b.said("hangup")
        assert (caller.over, caller.end_reason) == (True, "caller_hung_up")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds over the caller's own network follow each other quickly."""
    for name in ("OWN_NETWORK_AFTER_MS", "PREPARE_PATIENCE_MS"):
        monkeypatch.setattr(f"voxplane.watch.{name}", 600)
    monkeypatch.setattr("voxplane.watch.RETRY_AFTER_MS", (600,))


@pytest.mark.usefixtures("hasty")
async def test_with_both_silent_the_owner_is_tried_again_and_the_epoch_stays() -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        b.mute = True
        first = a.owner
        assert first is not None
        a.lost.add(first)
        await until(lambda: a.owner is not first, "a socket that is answered")
        await a.talk(TONE)
        assert await caller.receive() is not None
        await until(lambda: first.close_code is not None, "the lost socket dropped")
        assert (caller.epoch, caller.gaps, a.modes, b.said("take")) == (1, [], ["attach", "resume"], [])


@pytest.mark.usefixtures("hasty")
async def test_the_owner_closing_the_old_socket_for_the_new_one_is_no_reason_to_take() -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        b.mute = True
        first = a.owner
        assert first is not None
        a.lost.add(first)

        async def replace(_: ServerConnection) -> None:
            await first.close()

        a.before_attached = replace
        await until(lambda: a.owner is not first, "the new socket")
        await a.talk(TONE)
        assert await caller.receive() is not None
        assert (caller.epoch, caller.gaps, b.said("take")) == (1, [], [])


@pytest.mark.usefixtures("hasty")
async def test_the_owner_is_tried_again_and_again_while_the_network_is_away() -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        a.mute = b.mute = True
        await until(lambda: a.modes.count("resume") >= 2 and b.modes.count("prepare") >= 2, "two rounds")
        b.mute = False
        await until(lambda: caller.epoch == 2, "the standby that answers")
        assert b.said("take")[0]["reason"] == "silent"


@pytest.mark.usefixtures("hasty")
async def test_an_owner_that_knows_nothing_of_the_call_any_more_is_left() -> None:
    async with edges("a", "b") as [a, b], caller_of(a, b) as caller:
        a.mute = b.mute = True
        a.refuse = wire.Refused(code="not_held", detail="not here")
        await until(lambda: "take" in b.modes, "the take")
        b.mute = False
        await until(lambda: b.said("attach"), "an attach at the standby")
        assert b.modes[-1] == "take"
        assert caller.epoch in (1, 2)


async def test_a_take_is_never_withdrawn_a_late_standby_is_not_believed() -> None:
    async with edges("a", "b", "c") as [a, b, c], caller_of(a, b, c) as caller:
        b.mute = True
        await a.die()
        await until(lambda: caller.epoch == 3, "the second standby")
        [late] = b.sockets
        await until(lambda: late.close_code is not None, "the first standby dropped")
        await c.talk(TONE)
        assert await caller.receive() is not None
        assert (b.modes, c.modes) == (["take"], ["take"])


async def test_with_no_grant_left_a_new_ticket_is_asked_for_with_the_old_one() -> None:
    async with edges("a", "b", "c") as [a, b, c]:
        fresh = ticket(c, first_epoch=5)
        tickets = Tickets(Unavailable(["down"]), "not a ticket", ticket(a, b), fresh)
        async with caller_of(a, b, tickets=tickets) as caller:
            await b.die()
            await a.die()
            await until(lambda: caller.epoch == 5, "the new ticket's grant")
            assert (caller.region, c.modes) == ("c", ["take"])
            assert c.said("attach")[0]["ticket"] == fresh
            assert tickets.asked == [(CALL, ticket(a, b))] * 4


async def test_a_call_that_has_ended_meanwhile_is_lost_at_once() -> None:
    gone = ApiError(409, {"code": "call_ended"})
    async with edges("a") as [a], caller_of(a, tickets=Tickets(gone)) as caller:
        await a.die()
        assert await caller.receive() is None
        assert caller.lost and caller.over


async def test_leaving_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    async with edges("a", "b") as [a, b]:
        async with caller_of(a, b):
            a.mute = b.mute = True
            await until(lambda: b.sockets, "a standby being prepared")
        entering = asyncio.create_task(caller_of(a, b).__aenter__())
        await until(lambda: len(a.sockets) > 1, "a second caller")
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
        await until(
            lambda: all(s.close_code is not None for s in a.sockets + b.sockets), "every socket closed"
        )
    await until(lambda: asyncio.all_tasks() <= before, "every task done")


@pytest.mark.parametrize(
    "text", ["", "a.b.c", "x", "e30.e30.x", "e30.W10.x", "e30.eyJzdWIiOiJjIiwiZyI6W119.x"]
)
def test_what_is_no_ticket_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="not a ticket"):
        AsyncCaller(text)
