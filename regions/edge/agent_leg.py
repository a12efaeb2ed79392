"""The backend's side of a call: dialled, dialled again after a crash, told who and where it is.

Decides what a new socket is told of the conversation and what waits for it, and which hang-ups are believed. When it is dialled
and when it is given up on is `Redial`'s. Whether the call still may is asked before and after every attempt (`owns`, `leaving`);
how it went is reported, never decided here.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from regions.agents.connection import AgentConnection, AgentEvents, Ending
from regions.agents.dial import DialError
from regions.agents.dialect import Cut, Start
from regions.agents.redial import FIRST_DIAL_MS, Redial
from regions.agents.signing import upgrade_headers
from regions.agents.speaking import dialect_of
from regions.edge.call_trace import handed_on
from regions.edge.clock import lease_ms, wall_ms
from regions.edge.context import EdgeContext
from regions.edge.line import Carried
from regions.edge.speech import Awaited
from regions.wire.sids import sid, socket_number
from regions.wire.snapshot import Turn
from regions.wire.ticket import Claims, Sealed

log = structlog.get_logger()

CURT_MS = 1_000
CURT_MAX = 3
"""A backend that hangs up on a resumed call within `CURT_MS`, without a word, is believed the third time."""
DIGITS_MAX = 32
LEAVING_LOOK_S = 0.1
BROKE_OFF = "broke_off"
"""Why a backend was given up on that was reached each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialled:
    """How the dialling went. `code`: of the last attempt's `DialError`, or `BROKE_OFF`; empty where one came to something.
    `resumed`: it was not for the call's first backend."""

    resumed: bool
    attempts: int = 1
    away_ms: int = 0
    fallback: bool = False
    code: str = ""

    @property
    def tried(self) -> dict[str, object]:
        """What the log says of one that came to nothing."""
        return {"detail": self.code, "attempts": self.attempts, "away_ms": self.away_ms}


@dataclass(frozen=True, slots=True)
class Known:
    """The conversation, and the utterance whose rest is awaited."""

    turns: list[Turn]
    awaited: Awaited | None = None


class DialEvents(AgentEvents, Protocol):
    """What a call is told of its backend, how the dialling went included."""

    def owns(self) -> bool: ...
    def leaving(self) -> bool:
        """The caller is on its way to another edge, which dials its own."""
        ...

    def on_connected(self, dialled: Dialled) -> None: ...
    def on_unreached(self) -> None:
        """An attempt for a call that had a backend has failed; there will be another."""
        ...

    def on_unreachable(self, dialled: Dialled) -> None:
        """There is no attempt left."""
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
        self._trace = handed_on(context.spans, sealed.trace, claims.call, epoch)
        self._connection: AgentConnection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._redial = Redial(round(sealed.agent.reconnect.deadline_s * 1000))
        self._resumed = False
        self._up_ms = 0
        self._curt = 0
        self._opened = 0
        self._away = False
        self._digits: deque[str] = deque(maxlen=DIGITS_MAX)
        self._presses = context.counts.presses("key", claims.call, epoch)
        self.stream_sid = sid("MZ", os.urandom(16))
        self.carried = Carried()

    @property
    def connection(self) -> AgentConnection | None:
        """None while there is no backend to talk to."""
        return self._connection

    @property
    def socket(self) -> int | None:
        """The number of the socket in use, which stands in the call sid that it was given."""
        return socket_number(self._epoch, self._opened - 1) if self._connection is not None else None

    def dial(self, known: Callable[[], Known], *, resumed: bool) -> None:
        """The call's first backend, or the first of this owner. `known`: what it is told, at the moment of each attempt."""
        if resumed:
            self._redial.lost(lease_ms(), sure=1)
        work = self._dial_until_up(known) if resumed else self._dial_first()
        self._dialling = asyncio.create_task(work, name=f"dial {self._claims.call}")

    def again(self, known: Callable[[], Known]) -> None:
        """After `lost`."""
        self._redial.lost(lease_ms())
        self._dialling = asyncio.create_task(self._dial_until_up(known), name=f"dial {self._claims.call}")

    def lost(self, connection: AgentConnection, ending: Ending) -> Ending | None:
        """The backend's socket has closed: how that is to be taken; None where it was not the one in use."""
        if self._connection is not connection:
            return None
        self._connection = None
        if connection.said:
            self._curt = 0
        elif ending.clean and self._resumed and lease_ms() - self._up_ms < CURT_MS:
            self._curt += 1
            if self._curt < CURT_MAX:
                return Ending(clean=False, why="hung_up_at_once", code=ending.code)
        return ending

    def dtmf(self, digit: str) -> bool:
        """Sent, or kept for the backend that is being dialled; the newest `DIGITS_MAX`. False for one key too many."""
        if not self._presses.count(lease_ms()):
            return False
        if self._connection is not None:
            self._connection.send_dtmf(digit)
        else:
            self._digits.append(digit)
        return True

    def close(self, *, stop: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(stop=stop)
        if self._dialling is not None and self._dialling is not asyncio.current_task():
            self._dialling.cancel()

    async def _dial_first(self) -> None:
        """Once; and again for `FIRST_DIAL_MS` where nobody is there at the moment, as while a backend is started anew."""
        redial, draw, code = Redial(FIRST_DIAL_MS), 0.0, ""
        redial.lost(lease_ms(), sure=1)
        while (pause_ms := redial.pause_ms(lease_ms(), draw)) is not None:
            await asyncio.sleep(pause_ms / 1000)
            if not self._events.owns():
                return
            failed = await self._attempt(None, hurry=False)
            if failed is None:
                return
            if not failed:
                self._connected(Dialled(resumed=False, fallback=self._fallback))
                return
            draw, code = random.random(), failed
            if not self._away:
                break
        if self._events.owns():
            self._events.on_unreachable(Dialled(resumed=False, code=code))

    async def _dial_until_up(self, known: Callable[[], Known]) -> None:
        redial, code = self._redial, BROKE_OFF
        while (pause_ms := redial.pause_ms(lease_ms(), random.random())) is not None:
            await asyncio.sleep(pause_ms / 1000)
            if not await self._stays():
                return
            failed = await self._attempt(known(), hurry=True)
            if failed is None:
                return
            if not failed:
                dialled = Dialled(
                    resumed=True, attempts=redial.attempts, away_ms=redial.away_ms(lease_ms()), fallback=self._fallback
                )  # fmt: skip
                redial.up(lease_ms())
                self._connected(dialled)
                return
            code = failed
            self._events.on_unreached()
        away_ms = redial.away_ms(lease_ms())
        if not await self._stays():
            return
        self._events.on_unreachable(
            Dialled(resumed=True, attempts=redial.attempts, away_ms=away_ms, code=code)
        )

    async def _stays(self) -> bool:
        """Whether the call is still here, once that is known."""
        while self._events.owns():
            if not self._events.leaving():
                return True
            await asyncio.sleep(LEAVING_LOOK_S)
        return False

    async def _attempt(self, known: Known | None, *, hurry: bool) -> str | None:
        """Empty where the backend is there; else the code of what has failed. None: the call is not here any more."""
        call = self._claims.call
        agent = self._sealed.agent
        socket = socket_number(self._epoch, self._opened)
        dialect = dialect_of(
            agent, stream_sid=self.stream_sid, project=self._claims.project, call=call, socket=socket
        )
        connection = AgentConnection(
            self._events, dialect, dial=self._context.dial, signed=self._signed, carried=self.carried
        )
        try:
            await connection.open(
                agent,
                self._start(known),
                local_targets=self._sealed.local_targets and self._context.settings.local_targets,
                tls=self._context.tls,
                hurry=hurry,
            )
        except DialError as error:
            self._away = error.away
            log.info("agent.unreachable", call=call, code=error.code, detail=error.detail)
            return error.code if self._events.owns() else None
        if not self._events.owns():
            connection.close(stop=False)
            return None
        self._opened += 1
        self._connection = connection
        return ""

    def _signed(self, url: str) -> dict[str, str]:
        sealed, call = self._sealed, self._claims.call
        now_s = wall_ms() // 1000
        headers = upgrade_headers(
            sealed.secrets, url=url, call=call, dialect=sealed.agent.dialect, now_s=now_s
        )
        return headers | ({"traceparent": self._trace} if self._trace else {})

    @property
    def _fallback(self) -> bool:
        return self._connection is not None and self._connection.fallback

    def _connected(self, dialled: Dialled) -> None:
        self._up_ms, self._resumed = lease_ms(), dialled.resumed
        self._events.on_connected(dialled)
        digits, self._digits = list(self._digits), deque(maxlen=DIGITS_MAX)
        if self._connection is not None:
            for digit in digits:
                self._connection.send_dtmf(digit)  # they were counted when they were pressed

    def _start(self, known: Known | None) -> Start:
        sealed, awaited = self._sealed, known.awaited if known is not None else None
        return Start(
            call=self._claims.call,
            epoch=self._epoch,
            from_number=sealed.from_number,
            to_number=sealed.to_number,
            parameters=sealed.agent.parameters,
            turns=known.turns if known is not None else None,
            cut=Cut(id=awaited.id, offset_ms=awaited.at.offset_ms) if awaited is not None else None,
            trace=self._trace,
        )
