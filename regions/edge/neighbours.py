"""What this edge sees of the others: probes of their listeners, and callers that came because their edge failed them.

Decides when to look, what an outcome is, and when it is this edge's own fault. Leaves all conclusions to the control plane. Once a
second each target is asked for a 204 by HTTP; every fifth time a frame is sent through its media listener instead, as callers
measure it, and has to come back: the smallest synthetic call. Each look has a connection of its own, so that a port where nobody
listens is told from a machine that does not answer. A look that took longer than it may by more than a little was held up here:
it says nothing of the other side.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode

from regions.wire.observations import (
    AGE_MS_MAX,
    FAILURES_KEPT_S,
    FAILURES_MAX,
    RTT_MS_MAX,
    STREAK_MAX,
    TARGETS_MAX,
    Failure,
    Listener,
    Neighbour,
    Neighbours,
    Observed,
    Outcome,
    Probe,
    Reason,
)

log = structlog.get_logger()

DEADLINE_S = 1.0
OVERRUN_MAX_S = 0.25
EVERY_MIN_S, EVERY_MAX_S = 0.05, 60.0
MEDIA_EVERY = 5
AGAIN_AFTER = 0.3
ECHO_BYTES = 32
ANSWER_BYTES_MAX = 4_096
UNREACHABLE = frozenset({100, 101, 112, 113, 65, 51, 64})
"""errno of "no way there" (network or host down or unreachable): the way is silent, and nobody has said no."""


@dataclass(slots=True)
class _Seen:
    """The newest look at one listener."""

    outcome: Outcome
    rtt_ms: float
    at_s: float
    streak: int
    reached: bool


class NeighbourWatch:
    """`tell`: sends a report, or drops it where the uplink is down. `use`: whom to look at; nobody, until told."""

    def __init__(self, tell: Callable[[Observed], None], tls: ssl.SSLContext | None = None) -> None:
        self._tell = tell
        self._tls = tls or ssl.create_default_context()
        self._targets: list[Neighbour] = []
        self._seen: dict[tuple[str, Listener], _Seen] = {}
        self._failures: OrderedDict[str, tuple[str, Reason, float]] = OrderedDict()
        self._every_s = 1.0
        self._changed = asyncio.Event()
        self._lag_s = 0.0
        self._asked = False

    def use(self, neighbours: Neighbours | None) -> None:
        """None: a control plane that has not asked is not told."""
        self._asked = neighbours is not None
        self._targets = [] if neighbours is None else neighbours.targets[:TARGETS_MAX]
        if neighbours is not None:
            self._every_s = min(EVERY_MAX_S, max(EVERY_MIN_S, neighbours.every_s))
        named = {t.edge for t in self._targets}
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in named}
        self._changed.set()

    def failed(self, call: str, edge: str, reason: Reason) -> None:
        """A caller has come here from `edge`, which failed it."""
        self._failures[call] = (edge, reason, asyncio.get_running_loop().time())
        self._failures.move_to_end(call)
        while len(self._failures) > FAILURES_MAX:
            self._failures.popitem(last=False)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. Says something once a second, and at once when an outcome turns."""
        reporting = asyncio.create_task(self._report())
        try:
            await self._look_at_all()
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)

    async def _look_at_all(self) -> None:
        loop = asyncio.get_running_loop()
        due_s, turn = loop.time(), 0
        looking: set[asyncio.Task[None]] = set()
        try:
            while True:
                late_s = loop.time() - due_s
                # it is forgotten over some seconds, so that a report that follows a stall still says so
                self._lag_s = max(late_s, self._lag_s / 2)
                turn += 1
                for i, target in enumerate(self._targets):
                    listener: Listener = "media" if (turn + i) % MEDIA_EVERY == 0 else "http"
                    if len(looking) < 2 * TARGETS_MAX:
                        task = asyncio.create_task(self._look(target, listener))
                        looking.add(task)
                        task.add_done_callback(looking.discard)
                due_s = max(due_s + self._every_s, loop.time())
                await asyncio.sleep(max(0.0, due_s - loop.time()))
        finally:
            for task in looking:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)

    async def _look(self, target: Neighbour, listener: Listener, *, again: bool = False) -> None:
        """What failed for the first time is looked at again soon: one look is no evidence, two are."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        outcome: Outcome = "ok"
        try:
            async with asyncio.timeout(DEADLINE_S):
                if listener == "media":
                    await self._echo(target.media_url)
                else:
                    await self._ask(target.http_url)
        except ConnectionRefusedError:
            outcome = "refused"
        except TimeoutError:
            outcome = "timeout"
        except OSError as error:
            outcome = "timeout" if error.errno in UNREACHABLE or isinstance(error, _Unresolved) else "error"
        except (WebSocketException, ValueError, EOFError):
            outcome = "error"
        took_s = loop.time() - began_s
        if outcome == "timeout" and took_s > DEADLINE_S + OVERRUN_MAX_S:
            return
        self._note(target.edge, listener, outcome, min(RTT_MS_MAX, took_s * 1000))
        if outcome != "ok" and not again and self._streak(target.edge, listener) == 1:
            await asyncio.sleep(self._every_s * AGAIN_AFTER)
            await self._look(target, listener, again=True)

    def _streak(self, edge: str, listener: Listener) -> int:
        seen = self._seen.get((edge, listener))
        return seen.streak if seen is not None else 0

    def _note(self, edge: str, listener: Listener, outcome: Outcome, rtt_ms: float) -> None:
        if edge not in {t.edge for t in self._targets}:
            return
        before = self._seen.get((edge, listener))
        same = before is not None and before.outcome == outcome
        self._seen[(edge, listener)] = _Seen(
            outcome,
            rtt_ms,
            asyncio.get_running_loop().time(),
            min(STREAK_MAX, before.streak + 1) if before is not None and same else 1,
            outcome == "ok" or (before is not None and before.reached) or self._reached(edge),
        )
        if before is None or not same or self._seen[(edge, listener)].streak == 2:
            self._changed.set()

    def _reached(self, edge: str) -> bool:
        return any(seen.reached for (other, _), seen in self._seen.items() if other == edge)

    async def _ask(self, url: str) -> None:
        """A GET of ``/probe`` that is answered with 204, or with the word that it is probed too much (429): it is there. Raises
        what the socket raises, or `ValueError`."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = await _address(url, 443 if secure else 80)
        tls = {"ssl": self._tls, "server_hostname": parts.hostname} if secure else {}
        reader, writer = await asyncio.open_connection(host, port, limit=ANSWER_BYTES_MAX, **tls)  # type: ignore[arg-type]
        try:
            writer.write(f"GET /probe HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
            if line.split(b" ")[1:2] not in ([b"204"], [b"429"]):
                raise ValueError("this is no probe")
        finally:
            writer.close()

    async def _echo(self, url: str) -> None:
        """One frame through the media listener and back. Raises what the library raises, or `ValueError`."""
        host, port = await _address(url, 443 if url.startswith("wss") else 80)
        async with connect(
            url + "/probe", host=host, port=port, open_timeout=DEADLINE_S, close_timeout=0.1, ping_interval=None,
            compression=None, proxy=None, max_size=ANSWER_BYTES_MAX, ssl=self._tls if url.startswith("wss") else None,
        ) as echo:  # fmt: skip
            frame = os.urandom(ECHO_BYTES)
            try:
                await echo.send(frame)
                if await echo.recv() != frame:
                    raise ValueError("this is no echo")
            except ConnectionClosed as closed:
                # one that is probed too much is there
                if closed.rcvd is None or closed.rcvd.code != CloseCode.TRY_AGAIN_LATER:
                    raise

    # ------------------------------------------------------------------------------------------------- reporting

    async def _report(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            if self._asked:
                self._tell(self.observed())
            # outcomes that turn together are said together
            await asyncio.sleep(self._every_s / 10)

    def observed(self) -> Observed:
        now_s = asyncio.get_running_loop().time()
        while self._failures and now_s - next(iter(self._failures.values()))[2] > FAILURES_KEPT_S:
            self._failures.popitem(last=False)
        probes = [
            Probe(
                edge=edge, listener=listener, outcome=seen.outcome, rtt_ms=round(seen.rtt_ms, 2),
                age_ms=_age_ms(now_s - seen.at_s), streak=seen.streak, reached=seen.reached,
            )
            for (edge, listener), seen in self._seen.items()
        ]  # fmt: skip
        failures = [
            Failure(call=call, edge=edge, reason=reason, age_ms=_age_ms(now_s - at_s))
            for call, (edge, reason, at_s) in self._failures.items()
        ]
        return Observed(
            lag_ms=min(float(AGE_MS_MAX), round(self._lag_s * 1000, 1)), probes=probes, failures=failures
        )


class _Unresolved(OSError):
    """The name could not be looked up: this edge's trouble."""


async def _address(url: str, default_port: int) -> tuple[str, int]:
    """The first address of the URL's host: one that refuses must not be hidden by another that is silent."""
    parts = urlsplit(url)
    port = parts.port or default_port
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise _Unresolved from None
    return str(found[0][4][0]), port


def _age_ms(age_s: float) -> int:
    return min(AGE_MS_MAX, max(0, int(age_s * 1000)))
