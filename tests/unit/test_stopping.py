"""What ends when an instance is told to stop: whoever waits is woken, and nobody has to be cut off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.hints import Hints
from app.server import cut_off_in_a_line
from app.supervisor import Supervisor, until_stop

FOR_EVER_S = 3_600.0


async def test_who_waits_for_a_wake_ends_with_the_instance() -> None:
    hints, supervisor = Hints({}), Supervisor()
    woken = hints.subscribe("a topic")
    ended: list[str] = []

    async def worker(stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                await woken.wait(FOR_EVER_S)
        except asyncio.CancelledError:
            ended.append("cut off")
            raise
        ended.append("by itself")

    supervisor.add("waits", worker)
    hints.add_to(supervisor)
    supervisor.start()
    await asyncio.sleep(0)
    await supervisor.stop()
    assert ended == ["by itself"]


async def test_what_no_event_reaches_is_cancelled_at_the_stop() -> None:
    stop, closed = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    waiting = asyncio.create_task(until_stop(stop, work()))
    await asyncio.sleep(0)
    assert not waiting.done()
    stop.set()
    await waiting
    assert closed.is_set()


async def test_and_what_it_raises_before_is_raised() -> None:
    async def work() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError):
        await until_stop(asyncio.Event(), work())


async def test_it_ends_with_whoever_waits_for_it() -> None:
    closed = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    waiting = asyncio.create_task(until_stop(asyncio.Event(), work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert closed.is_set()


@pytest.mark.parametrize(
    ("cause", "said"), [(asyncio.CancelledError(), ""), (LookupError("lost"), "Traceback …")]
)
async def test_a_stop_that_is_cut_off_has_no_traceback_and_one_that_fails_has(
    cause: BaseException, said: str
) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            raise cause
        except BaseException:
            await send({"type": "lifespan.shutdown.failed", "message": "Traceback …"})
            raise

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(type(cause)):
        await cut_off_in_a_line(app)({"type": "lifespan"}, None, send)
    assert [m["message"] for m in sent] == [said]
