"""Measures what the control plane asks for: the way to other regions, and to customers' backends. Reports what was gathered.

Decides when, and what counts as a round trip. To a region it is an echo alone, over a connection that stands: opening it is not
timed. To a backend it is TCP's own handshake, to an address that passes the same filter as a dial (`regions.wire.addresses`);
nothing is sent. One host is tried once in `BACKEND_EVERY_MIN_S` at most, however often it is asked for and by how many lists.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode

from regions.agents.dial import SCHEMES
from regions.edge.clock import precise_ms
from regions.edge.witnesses import Trips, Witnesses
from regions.wire.addresses import AddressError, check_ip, check_url
from regions.wire.measuring import (
    BACKEND_EVERY_MIN_S,
    LEGS_MAX,
    MEASURE_EVERY_MIN_S,
    MESH_MAX,
    REPORT_EVERY_S,
    BackendTarget,
    Measure,
    Measured,
    Mesh,
    MeshTarget,
)

log = structlog.get_logger()

EVERY_MAX_S = 3_600.0
LOOK_S = 0.5
FIRST_WITHIN_S = 3.0
"""A new target waits for a moment drawn by lot: many edges are told of it at once."""
AT_ONCE_MAX = 8
ECHOES = 5
ECHO_BYTES = 16
ECHO_WITHIN_S = 2.0
OPEN_WITHIN_S = 5.0
CONNECT_WITHIN_S = 5.0
TRIED_MAX = 4 * (LEGS_MAX + MESH_MAX)


class Measurer:
    """`tell`: sends a report, or drops it where the uplink is down. `use`: whom to measure; nobody, until told."""

    def __init__(
        self,
        tell: Callable[[Measured], None],
        witnesses: Witnesses,
        *,
        local_targets: bool,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._tell = tell
        self._witnesses = witnesses
        self._local_targets = local_targets
        self._wanted: dict[str, MeshTarget | BackendTarget] = {}
        self._every_s = 0.0
        self._asked = False
        self._due_s: OrderedDict[str, float] = OrderedDict()
        """When each may be tried next; kept for those that are not wanted now, for they may be wanted again."""
        self._busy: set[asyncio.Task[None]] = set()

    def use(self, measure: Measure | None) -> None:
        """None: a control plane that has not asked is not told."""
        self._asked = measure is not None
        self._wanted = {}
        if measure is not None:
            self._every_s = min(EVERY_MAX_S, max(MEASURE_EVERY_MIN_S, measure.every_s))
            self._wanted |= {f"mesh {t.region}": t for t in measure.mesh[:MESH_MAX]}
            self._wanted |= {f"backend {t.host}": t for t in measure.backends[:LEGS_MAX]}

    async def run(self) -> None:
        """Until cancelled."""
        reporting = asyncio.create_task(self._report())
        try:
            while True:
                self._start_due()
                await asyncio.sleep(LOOK_S)
        finally:
            tasks = [reporting, *self._busy]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            measured = self._witnesses.flush()
            if self._asked and measured is not None:
                self._tell(measured)

    def _start_due(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for key, target in self._wanted.items():
            due_s = self._due_s.setdefault(key, now_s + random.uniform(0, FIRST_WITHIN_S))
            if now_s < due_s or len(self._busy) >= AT_ONCE_MAX:
                continue
            backend = isinstance(target, BackendTarget)
            every_s = max(self._every_s, BACKEND_EVERY_MIN_S) if backend else self._every_s
            self._due_s[key] = now_s + every_s * random.uniform(1.0, 1.25)
            self._due_s.move_to_end(key)
            task = asyncio.create_task(self._measure(target))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)
        while len(self._due_s) > TRIED_MAX:
            self._due_s.popitem(last=False)

    def _measure(self, target: MeshTarget | BackendTarget) -> Coroutine[Any, Any, None]:
        return self.region(target) if isinstance(target, MeshTarget) else self.backend(target)

    async def region(self, target: MeshTarget) -> None:
        """An edge that says that it is probed too much is not measured, and not counted as lost."""
        trips, sent = Trips(), 0
        secured: Any = {"ssl": self._tls} if self._tls and target.media_url.startswith("wss") else {}
        try:
            async with connect(
                target.media_url + "/probe", open_timeout=OPEN_WITHIN_S, close_timeout=0.5, ping_interval=None,
                compression=None, proxy=None, max_size=4_096, **secured,
            ) as echo:  # fmt: skip
                for _ in range(ECHOES):
                    frame = os.urandom(ECHO_BYTES)
                    sent += 1
                    began_ms = precise_ms()
                    await echo.send(frame)
                    async with asyncio.timeout(ECHO_WITHIN_S):
                        back = await echo.recv()
                    if back == frame:
                        trips.add(precise_ms() - began_ms)
        except (WebSocketException, OSError, TimeoutError, ValueError) as error:
            if _too_much(error):
                return
            log.info("mesh.lost", region=target.region, error=type(error).__name__)
        lost = 1.0 if not sent else 1 - trips.samples / sent
        self._witnesses.region(
            Mesh(
                region=target.region, rtt_ms=round(trips.least_ms, 2) if trips.samples else 0.0,
                jitter_ms=round(trips.spread_ms, 2), loss=round(lost, 3),
            )
        )  # fmt: skip

    async def backend(self, target: BackendTarget) -> None:
        """One attempt, to the first address of the host, and only if every one of them may be dialled."""
        loop = asyncio.get_running_loop()
        scheme = SCHEMES[0] if target.tls else SCHEMES[1]
        try:
            url = f"{scheme}://{target.host}/"
            known = check_url(url, schemes=SCHEMES, local_targets=self._local_targets)
            if known.endpoint != target.host.lower():
                raise AddressError("bad_host", "this is not a host and a port", "Write it like host:443.")
            async with asyncio.timeout(CONNECT_WITHIN_S):
                found = await loop.getaddrinfo(known.host, known.port, type=socket.SOCK_STREAM)
            for entry in found:
                check_ip(str(entry[4][0]), local_targets=self._local_targets)
        except (AddressError, OSError, TimeoutError) as error:
            log.info("backend.not_measured", error=type(error).__name__)
            return
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as one:
            one.setblocking(False)
            began_ms = precise_ms()
            try:
                async with asyncio.timeout(CONNECT_WITHIN_S):
                    await loop.sock_connect(one, address)
            except (OSError, TimeoutError):
                self._witnesses.backend(known.endpoint, None)
                return
            self._witnesses.backend(known.endpoint, precise_ms() - began_ms)


def _too_much(error: Exception) -> bool:
    if isinstance(error, InvalidStatus):
        return error.response.status_code == 429
    closed = error.rcvd if isinstance(error, ConnectionClosed) else None
    return closed is not None and closed.code == CloseCode.TRY_AGAIN_LATER
