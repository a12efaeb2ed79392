"""Between the end of a lease and the turn that notices it: nothing that happens on the edge in that moment is said to anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from regions.edge import session as sessions
from regions.edge.agent_leg import Dialled
from regions.edge.clock import lease_ms
from regions.edge.machine import Phase
from regions.wire.events import EndReason
from regions.wire.media import LEASE_MS
from tests.support.edges import until
from tests.support.lone_edge import Backend, lone_edge

CALL = "call_1"


async def test_what_comes_before_the_turn_that_notices_takes_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a process that was stopped, whose sockets are read first when it goes on."""
    async with (
        lone_edge(tmp_path) as edge,
        Backend().run() as backend,
        edge.caller(edge.ticket(backend.url)) as caller,
    ):
        await caller.hear("attached")
        await until(lambda: edge.log.of("agent.connected"), "the backend")
        session = edge.calls.session(CALL, 1)
        assert session is not None
        agent = session._agent.connection
        assert agent is not None
        written = session.outbox.last_n
        with monkeypatch.context() as later:
            later.setattr(sessions, "lease_ms", lambda: lease_ms() + LEASE_MS + 1_000)
            session.caller_dtmf("5")
            session.on_audio(b"\x10" * 160)
            session.on_clear(None)
            session.on_text("tool.called", b'{"id":"t","name":"look","arguments":{}}')
            session.on_unreachable(Dialled(resumed=True, code="timeout"))
            session.caller_hung_up()
            session.end(EndReason.MAX_DURATION)
            agent.send_dtmf("7")
            agent.send_mark("m")
            assert session.phase is Phase.OWNING, "nobody has noticed yet"
            assert session.outbox.last_n == written
            assert edge.calls.existing(CALL, 1) is None, "and nobody is served by it again"
        with pytest.raises(Exception, match="1000"):
            await caller.hear("ended")
        assert session.phase is Phase.MUTE
        assert not edge.log.of("call.ended")
        assert {m["event"] for m in backend.got} <= {"connected", "start", "media"}
