"""The backend's side of a call: dialled, dialled again after a crash, told who and where it is.

Decides how often and how soon a lost backend is dialled again, and what a new socket is told of the conversation. Whether
the call still may is asked before and after every attempt (`owns`); how it went is reported, never decided here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

import structlog

from regions.agents.connection import AgentConnection, AgentEvents
from regions.agents.dial import DialError
from regions.agents.twilio import TwilioDialect, conversation_parameter, sid
from regions.edge.context import EdgeContext
from regions.wire.snapshot import Turn
from regions.wire.ticket import Claims, Sealed

log = structlog.get_logger()

REDIAL_S = (0.0, 0.2, 0.5, 1.0, 1.5, 2.0)
"""The pauses before each attempt on a call that had a backend; the first time there is one attempt."""
STEADY_S = 5.0
"""A backend that was there for so long has earned all attempts anew; one that falls over at once uses them up."""


class DialEvents(AgentEvents, Protocol):
    """What a call is told of its backend, how the dialling went included."""

    def on_connected(self, *, fallback: bool, resumed: bool) -> None: ...
    def on_unreachable(self, code: str, *, resumed: bool) -> None:
        """`code`: of the last attempt's `DialError`; empty where there was no attempt left."""
        ...


class AgentLeg:
    def __init__(
        self, events: DialEvents, context: EdgeContext, claims: Claims, epoch: int, sealed: Sealed
    ) -> None:
        self._events = events
        self._context = context
        self._claims = claims
        self._epoch = epoch
        self._sealed = sealed
        self._connection: AgentConnection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._attempts = 0
        self._up_at_s = 0.0
        self.stream_sid = sid("MZ", os.urandom(16))

    @property
    def connection(self) -> AgentConnection | None:
        """None while there is no backend to talk to."""
        return self._connection

    def dial(self, turns: Callable[[], list[Turn]], *, resumed: bool) -> None:
        """`turns`: the conversation at the moment of each attempt."""
        self._dialling = asyncio.create_task(
            self._dial_until_up(turns, resumed=resumed), name=f"dial {self._claims.call}"
        )

    def lost(self, connection: AgentConnection) -> bool:
        """The backend's socket has closed; False where it was not the one in use."""
        if self._connection is not connection:
            return False
        self._connection = None
        if asyncio.get_running_loop().time() - self._up_at_s >= STEADY_S:
            self._attempts = 0
        return True

    def close(self, *, stop: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(stop=stop)
        if self._dialling is not None and self._dialling is not asyncio.current_task():
            self._dialling.cancel()

    async def _dial_until_up(self, turns: Callable[[], list[Turn]], *, resumed: bool) -> None:
        call = self._claims.call
        why = ""
        for pause_s in REDIAL_S[self._attempts :] if resumed else REDIAL_S[:1]:
            self._attempts += 1
            await asyncio.sleep(pause_s)
            if not self._events.owns():
                return
            dialect = TwilioDialect(
                stream_sid=self.stream_sid,
                account_sid=sid("AC", self._claims.project.encode()[-16:]),
                call_sid=sid("CA", call.encode()[-16:]),
            )
            connection = AgentConnection(self._events, dialect, dial=self._context.dial)
            try:
                await connection.open(
                    self._sealed.agent,
                    self._parameters(turns() if resumed else None),
                    local_targets=self._sealed.local_targets and self._context.settings.local_targets,
                    tls=self._context.tls,
                )
            except DialError as error:
                log.info("agent.unreachable", call=call, code=error.code, detail=error.detail)
                why = error.code
                continue
            if not self._events.owns():
                connection.close(stop=False)
                return
            self._connection = connection
            self._up_at_s = asyncio.get_running_loop().time()
            self._events.on_connected(fallback=connection.fallback, resumed=resumed)
            return
        self._events.on_unreachable(why, resumed=resumed)

    def _parameters(self, resumed_with: list[Turn] | None) -> dict[str, str]:
        """Who calls, then what the customer gave, then what is ours: the later wins."""
        own = {
            "voxplane_call": self._claims.call,
            "voxplane_epoch": str(self._epoch),
            "voxplane_resumed": "true" if resumed_with is not None else "false",
        }
        if resumed_with is not None:
            own["voxplane_conversation"] = conversation_parameter(resumed_with)
        sealed = self._sealed
        caller = {"from_number": sealed.from_number, "to_number": sealed.to_number}
        return {k: v for k, v in caller.items() if v} | sealed.agent.parameters | own
