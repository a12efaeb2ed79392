"""A backend's sockets are signed, the first and every one that is dialled again, each for the URL that was dialled."""

from __future__ import annotations

from pathlib import Path

import pytest

from regions.wire.ticket import AgentSecret
from tests.support.edges import until
from tests.support.lone_edge import Backend, lone_edge
from voxplane import AsyncCaller, UpgradeError, verify_upgrade

SECRET = "agsec_of_the_project"
CALL = "call_1"


async def test_every_socket_of_a_call_is_signed_for_its_own_url(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge, Backend().run() as backend:
        closed = "ws://127.0.0.1:9/first"
        ticket = edge.ticket(
            closed, agent={"fallback_url": backend.url}, secrets=[AgentSecret(secret=SECRET)]
        )
        async with AsyncCaller(ticket, encoding="mulaw", sample_rate=8_000):
            await until(lambda: backend.starts, "the first socket")
            backend.sockets[0].transport.abort()
            await until(lambda: len(backend.starts) == 2, "the second socket")
            for socket in backend.sockets:
                assert socket.request is not None
                assert verify_upgrade(socket.request.headers, backend.url, SECRET) == CALL
                assert "X-Twilio-Signature" in socket.request.headers
                with pytest.raises(UpgradeError):
                    verify_upgrade(socket.request.headers, closed, SECRET)


async def test_a_ticket_of_an_older_api_has_no_secret_and_nothing_is_signed(tmp_path: Path) -> None:
    async with (
        lone_edge(tmp_path) as edge,
        Backend().run() as backend,
        AsyncCaller(edge.ticket(backend.url), encoding="mulaw", sample_rate=8_000),
    ):
        await until(lambda: backend.starts, "the socket")
        assert backend.sockets[0].request is not None
        with pytest.raises(UpgradeError) as refused:
            verify_upgrade(backend.sockets[0].request.headers, backend.url, SECRET)
        assert refused.value.code == "missing_header"
