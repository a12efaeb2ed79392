"""Callers at an edge's media listener: who is let in, when, and how often."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from regions.callers.websocket import FRAME_BYTES_MAX
from regions.edge import agent_leg
from regions.edge import session as session_module
from regions.edge.clock import wall_ms
from regions.edge.pressed import KEYS_MAX, TOLD_EVERY_MS, WITHIN_MS, Pressed, Presses
from regions.edge.snapshots import seal_snapshot
from regions.wire.media import AUDIO, HEADER
from regions.wire.snapshot import CallSnapshot
from regions.wire.ticket import Turns
from tests.support.edges import until
from tests.support.lone_edge import SNAPSHOT_KEY, Backend, lone_edge


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """These callers say nothing by themselves: on a busy machine a lease of three seconds is over in the midst of a test."""
    monkeypatch.setattr("regions.edge.lease.LEASE_MS", 600_000)


# ------------------------------------------------------------------------------------------- what an edge remembers


async def test_a_call_that_its_owner_has_ended_is_not_begun_again(tmp_path: Path) -> None:
    """Not by the ticket it had, at any of its epochs; also when nothing of the call is held any more."""
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        ticket = edge.ticket(backend.url, epochs=(1, 2))
        async with edge.caller(ticket) as caller:
            await caller.hear("attached")
            await caller.say("hangup")
            assert (await caller.hear("ended"))["end_reason"] == "caller_hung_up"
        await until(lambda: not edge.calls.sessions, "the call released")
        for epoch, mode in ((1, "attach"), (1, "take"), (2, "take"), (2, "prepare")):
            async with edge.caller(ticket, epoch, mode) as again:
                assert (await again.hear("attached", "prepared", "refused")).get("code") == "ended"
        assert len(backend.starts) <= 1


async def test_an_end_that_the_log_did_not_take_does_not_bar_a_later_ticket(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        async with edge.caller(edge.ticket(backend.url, epochs=(1, 2))) as caller:
            await caller.hear("attached")
            await caller.say("hangup")
            await caller.hear("ended")
        async with edge.caller(edge.ticket(backend.url, epochs=(3,)), 3, "take") as caller:
            assert (await caller.hear("attached", "refused"))["type"] == "attached"


async def test_an_epoch_is_used_once(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        ticket = edge.ticket(backend.url)
        async with edge.caller(ticket) as caller:
            await caller.hear("attached")
        session = edge.calls.session("call_1", 1)
        assert session is not None
        session.supersede()
        edge.calls.release(session)
        for mode in ("attach", "take", "prepare"):
            async with edge.caller(ticket, 1, mode) as again:
                assert (await again.hear("attached", "prepared", "refused")).get("code") == "epoch_used"


@pytest.mark.parametrize("epoch", [0, -1, 7])
async def test_a_number_that_no_ticket_grants_is_not_taken_for_a_call_that_has_ended(
    tmp_path: Path, epoch: int
) -> None:
    async with lone_edge(tmp_path) as edge, edge.caller(edge.ticket("ws://127.0.0.1:1/"), epoch) as caller:
        assert (await caller.hear("attached", "refused"))["code"] == "no_such_epoch"


# ------------------------------------------------------------------------------------------------------- the time


def snapshot(elapsed_ms: int = 0) -> str:
    of_epoch_1 = CallSnapshot(
        call="call_1", epoch=1, acked_n=1, last_n=1, turns=[], unacked=[], elapsed_ms=elapsed_ms
    )
    return seal_snapshot(of_epoch_1, SNAPSHOT_KEY)


@pytest.mark.parametrize(
    ("resume", "answer"),
    [({}, "refused"), ({"snapshot": "of nothing"}, "refused"), ({"epoch": 1}, "attached"), ({"snapshot": snapshot()}, "attached")],
)  # fmt: skip
async def test_a_take_that_begins_a_call_comes_in_time_as_an_attach_does(
    tmp_path: Path, resume: dict[str, Any], answer: str
) -> None:
    """A caller that was served before shows it, and is late for nothing."""
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        for prepare in (False, True):
            ticket = edge.ticket(backend.url, epochs=(2 + prepare,), attach_in_s=-60)
            mode = "prepare" if prepare else "take"
            async with edge.caller(ticket, 2 + prepare, mode, resume=resume) as caller:
                if prepare:
                    await caller.hear("prepared")
                    await caller.say("take", resume=resume)
                said = await caller.hear("attached", "refused")
                assert (said["type"], said.get("code")) == (
                    answer,
                    "expired" if answer == "refused" else None,
                )


async def test_a_clock_that_is_set_ends_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        lone_edge(tmp_path) as edge,
        Backend().run() as backend,
        edge.caller(edge.ticket(backend.url, max_s=5)) as caller,
    ):
        await caller.hear("attached")
        monkeypatch.setattr(session_module, "wall_ms", lambda: wall_ms() + 3_600_000)
        for _ in range(3):
            await caller.hear("tick")
        await caller.say("hangup")
        assert (await caller.hear("ended"))["end_reason"] == "caller_hung_up"


async def test_the_maximum_duration_counts_what_went_before_a_takeover(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        ticket = edge.ticket(backend.url, epochs=(2,), max_s=5)
        async with edge.caller(ticket, 2, "take", resume={"snapshot": snapshot(elapsed_ms=5_001)}) as caller:
            await caller.hear("attached")
            assert (await caller.hear("ended"))["end_reason"] == "max_duration"


# ------------------------------------------------------------------------------------------------------ the backend


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("ws://127.0.0.1:1/", "connect"),
        ("ws://10.0.0.1/", "address"),
        ("http", "handshake"),
    ],
)
async def test_the_end_says_why_the_backend_was_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, detail: str
) -> None:
    monkeypatch.setattr(agent_leg, "FIRST_DIAL_MS", 0)
    async with lone_edge(tmp_path) as edge:
        target = edge.url.replace("127.0.0.1", "localhost") + "/no/such/path" if url == "http" else url
        async with edge.caller(edge.ticket(target)) as caller:
            await caller.hear("attached")
            assert (await caller.hear("ended"))["end_reason"] == "agent_unreachable"
        await until(lambda: edge.log.of("call.ended"), "the final event")
        assert edge.log.why_ended() == {"end_reason": "agent_unreachable", "detail": detail}


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [
        ({}, ("+14155550100", "sip:bot@example.com")),
        ({"from_number": "withheld", "shop": "42"}, ("withheld", "sip:bot@example.com")),
    ],
)
async def test_the_backend_is_told_who_calls_whom_unless_the_create_says_otherwise(
    tmp_path: Path, parameters: dict[str, str], shown: tuple[str, str]
) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        who = {"from_number": "+14155550100", "to_number": "sip:bot@example.com"}
        async with edge.caller(edge.ticket(backend.url, agent={"parameters": parameters}, **who)) as caller:
            await caller.hear("attached")
            await until(lambda: backend.starts, "the backend's start")
        given = backend.starts[0]["customParameters"]
        assert (given["from_number"], given["to_number"]) == shown
        assert given.get("shop") == parameters.get("shop")
        assert given["voxplane_call"] == "call_1"


async def test_a_caller_without_a_number_is_not_told_as_one(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        async with edge.caller(edge.ticket(backend.url)):
            await until(lambda: backend.starts, "the backend's start")
        assert not {"from_number", "to_number"} & set(backend.starts[0]["customParameters"])


def brackets(levels: int) -> str:
    return "[" * levels + "]" * levels


DEEP = [brackets(n) for n in (100, *range(940, 1000, 10), 20_000, 200_000)]
NONSENSE = ["", "{", "null", "[]", "7", '"x"', "\u0000", "{}", '{"event":5}', '{"event":"media"}', *DEEP]
TEXTS = ("tool.called", "tool.result", "turn.ended", "transcript.final", "transcript.partial", "no.such")


async def test_no_nonsense_from_a_backend_raises_on_the_edge(
    tmp_path: Path, unraised: list[dict[str, Any]]
) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        async with edge.caller(edge.ticket(backend.url)) as caller:
            await caller.hear("attached")
            await until(lambda: backend.starts, "the backend's start")
            [socket] = backend.sockets
            for message in NONSENSE:
                await socket.send(message)
            await socket.send(b"\xff\xfe\x00")
            for data in (
                "null",
                "[]",
                '{"role":5}',
                *(f'{{"id":"t","role":"agent","arguments":{d}}}' for d in DEEP),
            ):
                for type_ in TEXTS:
                    await socket.send(f'{{"event":"voxplane","type":"{type_}","data":{data}}}')
            for media in ('{"payload":5}', '{"payload":"="}', f'{{"payload":"{"=" * 10_000}"}}', DEEP[-1]):
                await socket.send(f'{{"event":"media","media":{media}}}')
            await socket.send('{"event":"mark","mark":{"name":"the last"}}')
            await until(lambda: any(m["event"] == "mark" for m in backend.got), "the mark back")
            await caller.hear("snapshot")
            await caller.say("hangup")
            assert (await caller.hear("ended"))["end_reason"] == "caller_hung_up"
        assert edge.errors == []


async def test_no_nonsense_from_a_caller_raises_on_the_edge(
    tmp_path: Path, unraised: list[dict[str, Any]]
) -> None:
    tickets = [
        "",
        ".",
        "..",
        "e30.e30.",
        "x" * 20_000,
        "\u00e9.\u00e9.\u00e9",
        "bnVsbA.e30.e30",
        "W10.e30.e30",
    ]
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        attaches = [{"type": "attach", "ticket": t, "epoch": 1} for t in tickets]
        deep = [d for d in DEEP if len(d) < FRAME_BYTES_MAX]
        nonsense = [*NONSENSE[: -len(DEEP)], *deep, *(f'{{"type":"attach","ticket":{d}}}' for d in deep)]
        for said in [*nonsense, *map(json.dumps, attaches)]:
            async with edge.caller() as caller:
                await caller.socket.send(said)
                assert (await caller.hear("refused"))["code"] in ("bad_message", "malformed", "unknown_key")
        for binary in (b"", b"\x01", b"\xff" * 200):
            async with edge.caller() as caller:
                await caller.socket.send(binary)
                assert (await caller.hear("refused"))["code"] == "not_attached"
        for i, sealed in enumerate(("snap.", "snap.\u00e9", ".", "", "snap." + "A" * 70_000), start=1):
            ticket = edge.ticket(backend.url, call=f"call_{i}")
            resume = {"snapshot": sealed, "epoch": 2**62, "n": -1}
            async with edge.caller(ticket, 1, "take", resume=resume) as caller:
                assert (await caller.hear("attached", "refused"))["type"] == "attached"
        assert edge.errors == []


# ------------------------------------------------------------------------------------------------- one take at a time


class SlowTail:
    """A region's memory that answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.let = asyncio.Event()

    async def read(self, call: str) -> None:
        self.asked += 1
        await self.let.wait()


@pytest.fixture
async def unraised() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop was told of tasks that failed with nobody to hear it; there is nothing."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    yield told
    gc.collect()
    loop.set_exception_handler(None)
    assert told == []


async def test_takes_and_audio_that_come_while_a_take_is_under_way_change_nothing(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        tails = SlowTail()
        tails.let.set()
        edge.calls._tails = tails  # type: ignore[assignment]
        ticket = edge.ticket(backend.url, epochs=(2,))
        async with edge.caller(ticket, 2, "prepare") as caller:
            stamp = (await caller.hear("prepared"))["stamp"]
            tails.let.clear()
            for _ in range(3):
                await caller.say("take", resume={"epoch": 1})
            await caller.socket.send(HEADER.pack(AUDIO, 0, 1, stamp, 0, 0) + bytes(320))
            await caller.say("alive", stamp=stamp)
            await until(lambda: tails.asked == 2, "the take")
            tails.let.set()
            await caller.hear("attached")
            await caller.say("take", resume={"epoch": 1})
            await caller.say("hangup")
            await caller.hear("ended")
        assert tails.asked == 2
        assert edge.log.of("call.reconnecting")[0]["to_epoch"] == 2


@pytest.mark.parametrize("mode", ["take", "prepare"])
async def test_a_caller_that_leaves_while_its_take_is_under_way_owns_nothing(
    tmp_path: Path, mode: str, unraised: list[dict[str, Any]]
) -> None:
    """It is refused, or its socket closes: either way the call stays free for another take."""
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        tails = SlowTail()
        edge.calls._tails = tails  # type: ignore[assignment]
        ticket = edge.ticket(backend.url, epochs=(2,))
        async with edge.caller(ticket, 2, mode, resume={"epoch": 1}) as caller:
            await until(lambda: tails.asked, "the tail asked for")
            await caller.say("dtmf", digit="5")
            assert (await caller.hear("refused"))["code"] == "not_attached"
            tails.let.set()
            with pytest.raises(ConnectionClosed):
                await caller.hear("attached", "prepared")
        assert edge.calls.held() == []
        async with edge.caller(ticket, 2, "take", resume={"epoch": 1}) as caller:
            await caller.hear("attached")


async def test_a_caller_cannot_fill_the_log_with_keys(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        with capture_logs() as lines:
            async with edge.caller(edge.ticket(backend.url)) as caller:
                await caller.hear("attached")
                await until(lambda: backend.starts, "the backend's start")
                for _ in range(KEYS_MAX * 4):
                    await caller.say("dtmf", digit="5")
                await caller.say("hangup")
                assert (await caller.hear("ended"))["end_reason"] == "caller_hung_up"
                await until(lambda: edge.log.of("call.ended"), "the end")
        assert edge.log.of("dtmf.received") == [{"digit": "5"}] * KEYS_MAX
        await until(lambda: any(m["event"] == "stop" for m in backend.got), "the backend's last message")
        assert len([m for m in backend.got if m["event"] == "dtmf"]) == KEYS_MAX
        assert edge.calls.context.counts.presses_dropped == {"key": KEYS_MAX * 3, "button": 0}
        [told] = [line for line in lines if line["event"] == "call.presses_dropped"]
        assert (told["call"], told["epoch"], told["kind"], told["dropped"]) == ("call_1", 1, "key", 1)
        assert "5" not in told.values(), "which keys they were is content"


async def test_nor_with_presses_of_its_button(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        ticket = edge.ticket(backend.url, turns=Turns(mode="push_to_talk"))
        async with edge.caller(ticket) as caller:
            await caller.hear("attached")
            await until(lambda: backend.starts, "the backend's start")
            for i in range(KEYS_MAX * 6 + 1):
                await caller.say("talk", on=i % 2 == 0)
            await caller.say("talk", on=False)
            await caller.say("hangup")
            await caller.hear("ended")
            await until(lambda: edge.log.of("call.ended"), "the end")
        assert len(edge.log.of("speech.started")) == len(edge.log.of("speech.stopped")) == KEYS_MAX
        assert edge.calls.context.counts.presses_dropped["button"] == KEYS_MAX * 2 + 1


def test_a_minute_of_dropped_keys_has_one_line() -> None:
    dropped = Counter[str]()
    presses = Presses("key", "call_1", 2, dropped)
    with capture_logs() as lines:
        for now_ms in range(0, TOLD_EVERY_MS * 2 + 5_000, 20):
            presses.count(now_ms)
    assert [line["epoch"] for line in lines] == [2, 2, 2]
    assert lines[0]["dropped"] == 1 and dropped["key"] >= lines[-1]["dropped"] > 2_000


@given(st.lists(st.integers(0, 400), max_size=300))
def test_whoever_waits_may_press_on(pauses_ms: list[int]) -> None:
    pressed, now_ms, counted = Pressed(), 0, list[int]()
    for pause_ms in pauses_ms:
        now_ms += pause_ms
        if pressed.counts(now_ms):
            counted.append(now_ms)
        else:
            assert len([at for at in counted if now_ms - at < WITHIN_MS]) == KEYS_MAX
    assert all(b - a >= WITHIN_MS for a, b in zip(counted, counted[KEYS_MAX:], strict=False))


@pytest.mark.parametrize("whole", [True, False])
async def test_a_message_that_is_too_large_costs_its_backend_the_socket_and_leaves_no_traceback(
    tmp_path: Path, whole: bool
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with (
        lone_edge(tmp_path) as edge,
        Backend().run() as backend,
        edge.caller(edge.ticket(backend.url)) as caller,
    ):
        await caller.hear("attached")
        await until(lambda: backend.starts, "the backend")
        large = "x" * (3 << 20)
        with suppress(ConnectionClosed):
            await backend.sockets[0].send(
                large if whole else [large[i : i + 65_536] for i in range(0, 3 << 20, 65_536)]
            )
        await until(lambda: len(backend.starts) > 1, "another socket")
        gc.collect()
        assert edge.log.of("agent.disconnected")[0] == {"clean": False, "why": "too_large"}
    assert not complaints
