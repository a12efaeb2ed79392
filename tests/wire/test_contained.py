"""Edges whose word or clock is wrong: what they do to the calls of others, and to their own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import Unauthenticated
from app.fleet.tokens import read_edge
from regions.edge import calls as calls_module
from regions.edge import main as main_module
from regions.edge.calls import Refusal
from regions.edge.identity import Identity
from regions.edge.main import Edge
from regions.edge.registration import Refused
from regions.edge.settings import EdgeSettings
from regions.wire.media import Attach
from tests.support.edges import until
from tests.support.lone_edge import Backend, lone_edge
from voxplane import AsyncCaller

HOUR_S = 3_600


async def test_an_edge_that_is_full_refuses_whatever_was_said_of_its_load_and_the_caller_goes_on(
    tmp_path: Path,
) -> None:
    async with (
        lone_edge(tmp_path, "a") as a,
        lone_edge(tmp_path, "b", a.key) as b,
        Backend().run() as backend,
    ):
        a.calls.context.settings = replace(a.calls.context.settings, capacity_calls=1)
        first = a.ticket(backend.url, call="call_1", epochs=(1, 2), edges=(a, b))
        second = a.ticket(backend.url, call="call_2", epochs=(1, 2), edges=(a, b))
        async with (
            AsyncCaller(first, encoding="mulaw", sample_rate=8_000) as stays,
            AsyncCaller(second, encoding="mulaw", sample_rate=8_000) as goes,
        ):
            assert (stays.region, goes.region, a.calls.refused) == ("a", "b", 1)
            await until(lambda: len(backend.starts) == 2, "both backends")
            await stays.hangup()
            await goes.hangup()


async def test_an_edge_whose_clock_is_an_hour_ahead_sends_new_callers_on_and_keeps_those_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        lone_edge(tmp_path, "a") as a,
        lone_edge(tmp_path, "b", a.key) as b,
        Backend().run() as backend,
        AsyncCaller(a.ticket(backend.url), encoding="mulaw", sample_rate=8_000) as caller,
    ):
        await until(lambda: backend.starts, "the backend")
        ticket = a.ticket(backend.url, call="call_2", epochs=(1, 2), edges=(a, b))
        attach = Attach(ticket=ticket, epoch=1, mode="attach", encoding="mulaw", sample_rate=8_000)
        real = time.time
        monkeypatch.setattr(calls_module.time, "time", lambda: real() + HOUR_S)
        with pytest.raises(Refusal) as refused:
            a.calls.admit(attach)
        following = refused.value.following
        assert refused.value.code == "expired" and following is not None
        assert (following.epoch, following.url) == (2, b.url)
        assert [h.call for h in a.calls.held()] == ["call_1"] and not caller.over
        await caller.hangup()


@pytest.mark.parametrize("off_s", [HOUR_S, -HOUR_S])
def test_a_token_of_a_clock_that_is_off_is_refused_with_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    identity = Identity(tmp_path)
    token = identity.token("us-east")
    with pytest.raises(Unauthenticated) as refused:
        read_edge(token, identity.key.public_key(), now_s=time.time() - off_s)
    assert "clock" in refused.value.detail and "clock" in refused.value.mend
    assert "360" in refused.value.detail or "359" in refused.value.detail
    assert read_edge(token, identity.key.public_key(), now_s=time.time()).iss == ""


async def test_a_running_edge_that_is_refused_goes_on_while_it_holds_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock may be off, so that no token of its own is any good: its calls hear nothing of it."""

    async def refuse(*_: Any) -> Any:
        raise Refused("The token was made 3600 s ahead of this instance's clock.")

    monkeypatch.setattr(main_module, "register", refuse)
    edge = Edge(EdgeSettings(region="lab", name="e", control_urls=("http://127.0.0.1",), data=tmp_path))
    edge.listeners = None  # type: ignore[assignment]
    edge._urls = ["ws://before"]
    with pytest.raises(Refused):
        await edge.register_again()
    monkeypatch.setattr(edge.calls, "held", lambda: ["a call"])
    assert await edge.register_again() == ["ws://before"]
