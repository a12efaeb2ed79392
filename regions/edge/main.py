"""The edge, put together: what opens in which order, and what happens when it is asked to stop."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from ipaddress import ip_address

import structlog
import uvicorn
import uvloop

from regions.agents.dial import dial
from regions.callers.websocket import listen
from regions.callers.whip import Signalling
from regions.edge import logs
from regions.edge.calls import Calls
from regions.edge.clock import wall_ms
from regions.edge.context import EdgeContext
from regions.edge.http import make_app
from regions.edge.identity import Identity
from regions.edge.key_change import KeyChange
from regions.edge.keyring import Keyring
from regions.edge.measurer import Measurer
from regions.edge.neighbours import NeighbourWatch
from regions.edge.probing import PINGS_EVERY_S, Probing
from regions.edge.registration import Refused, Revoked, register
from regions.edge.session import Session
from regions.edge.settings import EdgeSettings, SettingsError
from regions.edge.span_sender import send_spans, spans_of
from regions.edge.spool import Spool
from regions.edge.tails import TailReader
from regions.edge.talk_page import TalkPage
from regions.edge.tls import connect_trusting, tls_of, trusting
from regions.edge.uplink import Uplink
from regions.edge.valkey import RegionValkey
from regions.media.pacer import Pacer, Turn
from regions.media.silero import Model, Silero, Unavailable
from regions.wire import ids
from regions.wire.keeping import opening, sealing
from regions.wire.uplink import UPLINK_PATH, EdgeListeners

log = structlog.get_logger()

FLUSH_WITHIN_S = 3.0
AWAY_S = 1.5
"""A control plane that is away for so long moves no call of an edge that is to stop."""
DRAIN_LOOK_S = 0.05
GC_THRESHOLD = 20_000


def new_event_id() -> str:
    return ids.encode(ids.EVENT, ids.uuid7(wall_ms(), int.from_bytes(os.urandom(8), "big")))


class _HttpServer(uvicorn.Server):
    """Signals are the edge's own business: this one would take them, end at once, and raise them again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Edge:
    """The parts of one edge, and who knows whom. `listeners` are known once both listen."""

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self.identity = Identity(settings.data)
        self.key_change = KeyChange(self.identity, settings.region, settings.key_days)
        self.trusts = trusting(settings.ca_file)
        self.valkey = RegionValkey(settings.redis_url)
        self.pacer = Pacer(_on_turn_error)
        keyring = Keyring(settings.data / "keys.json")
        tails = TailReader(self.valkey, opening(lambda: keyring.fleet))
        self.calls = Calls(keyring, tails, self.pacer)
        self.spool = Spool(self.valkey, self.calls, wall_ms, sealing(lambda: keyring.newest))
        self.neighbours = NeighbourWatch(lambda observed: self.uplink.tell(observed), self.trusts)
        probing = Probing(PINGS_EVERY_S, settings.trusted_proxies)
        self.measurer = Measurer(
            lambda measured: self.uplink.tell(measured),
            probing.witnesses,
            local_targets=settings.local_targets,
            tls=self.trusts,
        )
        self.uplink = Uplink(
            [],
            settings.region,
            self.identity,
            keyring,
            self.register_again,
            self.valkey.use,
            self.neighbours.use,
            self.measurer.use,
            connect=partial(connect_trusting, self.trusts),
            key_change=self.key_change,
        )
        self.uplink.calls = self.calls
        self.calls.context = EdgeContext(
            settings,
            self.uplink,
            self.trusts,
            new_event_id,
            self._release,
            tails,
            ended=self.calls.ended,
            failed=self.neighbours.failed,
            dial=partial(dial, connected=probing.witnesses.backend),
            probing=probing,
            spans=spans_of(settings),
        )
        self.silero = _silero(settings)
        if self.silero is not None:
            self.calls.context.voice = self.silero.voice
        self.listeners: EdgeListeners
        self._urls: list[str] = []
        self._know(self.identity.edge_id)

    async def register(self) -> list[str]:
        """The uplink's URLs. Raises `Refused`."""
        tls = self.trusts if self.settings.ca_file else None
        answer = await register(self.settings, self.identity, self.listeners, tls)
        self._know(answer.edge_id)
        self._urls = [u + UPLINK_PATH for u in self.settings.uplink_urls] or answer.uplink_urls
        return self._urls

    async def register_again(self) -> list[str]:
        """The same for an edge that serves: while it holds calls a refusal ends nothing, unless it was revoked. Its
        clock may be off, and is set again."""
        try:
            return await self.register()
        except Refused as refused:
            if isinstance(refused, Revoked) or not self.calls.held():
                raise  # its callers find it gone, and go to their standbys
            log.warning("registration.refused", why=str(refused), calls=len(self.calls.held()))
            return self._urls

    async def keep_connected(self) -> None:
        self.uplink.use(await self.register())
        await self.uplink.run()

    def _know(self, edge_id: str) -> None:
        self.calls.identity = self.spool.identity = (edge_id, self.identity.incarnation)

    def _release(self, session: Session) -> None:
        self.calls.release(session)
        if not session.outbox.settled:
            self.spool.leave(session.outbox)

    async def drain(self, hurry: asyncio.Event) -> None:
        """Before it leaves: the control plane moves the calls. Until none is left, the time is over, `hurry` is set, or nobody is
        there who could move them."""
        within_s, loop = self.settings.drain_s, asyncio.get_running_loop()
        self.calls.stopping = True
        self.uplink.will_stop(within_s)
        began_s = heard_s = loop.time()
        calls = len(self.calls.held())
        while self.calls.held() and not hurry.is_set() and loop.time() - began_s < within_s:
            heard_s = loop.time() if self.uplink.up else heard_s
            if loop.time() - heard_s > AWAY_S:
                log.info("edge.not_drained", calls=len(self.calls.held()))
                return
            await asyncio.sleep(DRAIN_LOOK_S)
        if calls:
            log.info(
                "edge.drained", calls=calls, left=len(self.calls.held()), s=round(loop.time() - began_s, 2)
            )

    async def leave(self) -> None:
        """The callers' sockets close without an end: they take their standbys at once. What was written is seen off."""
        for session in self.calls.sessions:
            session.supersede()
        await _flush(self.calls)
        await self.spool.sweep(after_ms=0)
        await self.uplink.stopped()


async def serve(settings: EdgeSettings) -> None:
    """Until SIGTERM or SIGINT, and until its calls have moved; the second signal waits for nothing. Raises `Refused` where the
    control plane will not have this edge."""
    stop, hurry = _stop_on_signals()
    async with AsyncExitStack() as stack:
        tls = tls_of(settings)
        shown, s = (tls.context, "s") if tls is not None else (None, "")
        edge = Edge(settings)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, edge.key_change.want)
        stack.push_async_callback(edge.valkey.close)
        media = await listen(edge.calls, settings.media_host, settings.media_port, shown)
        stack.callback(media.close)
        media_port = media.sockets[0].getsockname()[1]
        signalling = _webrtc(settings, edge.calls, stack)
        http, http_task, http_port = await _serve_http(settings, edge.calls, edge.uplink, signalling, shown)
        edge.listeners = EdgeListeners(
            media_url=settings.public_media_url or f"ws{s}://{settings.media_host}:{media_port}",
            http_url=settings.public_http_url or f"http{s}://{settings.http_host}:{http_port}",
            webrtc=signalling is not None,
        )
        _spare_the_collector()
        edge.pacer.start()
        stack.callback(edge.pacer.stop)
        if edge.silero is not None:
            edge.silero.start()
            stack.push_async_callback(edge.silero.stop)
        connecting = asyncio.create_task(edge.keep_connected())
        spooling = asyncio.create_task(edge.spool.run())
        looking = asyncio.create_task(edge.neighbours.run())
        measuring = asyncio.create_task(edge.measurer.run())
        if tls is not None:
            tls.start(stack, edge.calls.context)
        left = asyncio.Event()
        tracing = asyncio.create_task(send_spans(edge.calls.context.spans, left))
        log.info(
            "edge.ready",
            region=settings.region,
            edge=settings.name,
            media_port=media_port,
            http_port=http_port,
            certificate=tls.served.certificate.fingerprint if tls is not None else None,
        )
        await _until_stopped(stop, connecting)
        await edge.drain(hurry)
        await edge.leave()
        left.set()
        for task in (connecting, spooling, looking, measuring):
            task.cancel()
        http.should_exit = True
        await asyncio.gather(
            connecting, spooling, looking, measuring, tracing, http_task, return_exceptions=True
        )
        log.info("edge.stopped", region=settings.region, edge=settings.name)


def _silero(settings: EdgeSettings) -> Silero | None:
    """Says once what hears the callers; None where it is the gate alone."""
    if settings.voice_detector == "webrtc":
        log.info("edge.voice_detector", detector="webrtc")
        return None
    try:
        silero = Silero(Model())
    except Unavailable as error:
        say = log.warning if settings.voice_detector == "silero" else log.info
        say("edge.voice_detector", detector="webrtc", why=str(error))
        return None
    log.info("edge.voice_detector", detector="silero")
    return silero


def _stop_on_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first signal, and by the second."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(
            number, lambda: (hurry if stop.is_set() else stop).set()
        )
    return stop, hurry


async def _until_stopped(stop: asyncio.Event, registering: asyncio.Task[None]) -> None:
    """Raises what the registration raised, if it comes first."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, registering}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if registering.done() and not stop.is_set():
        registering.result()


def _webrtc(settings: EdgeSettings, calls: Calls, stack: AsyncExitStack) -> Signalling | None:
    """None where it is not wanted. Raises `SettingsError` where it cannot be had."""
    if not settings.webrtc:
        return None
    try:
        found = importlib.import_module("regions.callers.webrtc")
    except ImportError:
        raise SettingsError("VOXPLANE_WEBRTC=1 needs the package wrtc: install the extra `webrtc`") from None
    if _is_loopback(settings.http_host):
        found.allow_loopback()
    callers: Signalling = found.WebRtcCallers(
        calls, ice_servers=settings.ice_servers, ports=settings.rtc_ports
    )
    stack.callback(callers.close)
    return callers


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve_http(
    settings: EdgeSettings,
    calls: Calls,
    uplink: Uplink,
    signalling: Signalling | None,
    tls: ssl.SSLContext | None,
) -> tuple[uvicorn.Server, asyncio.Task[None], int]:
    """Listening on the port returned. Raises `OSError` where it cannot."""
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    listener = socket.create_server((settings.http_host, settings.http_port), family=family)
    talk = TalkPage() if settings.talk_page else None
    config = uvicorn.Config(
        make_app(calls, uplink, signalling, talk),
        log_level="critical",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        ws="none",  # the wish for a WebSocket is not heard, and its request answered as any other
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )
    http = _HttpServer(config)
    task = asyncio.create_task(http.serve(sockets=[listener]))
    return http, task, listener.getsockname()[1]


async def _flush(calls: Calls) -> None:
    """What the calls have written is given a moment to reach the log."""
    deadline = asyncio.get_running_loop().time() + FLUSH_WITHIN_S
    while asyncio.get_running_loop().time() < deadline:
        if all(s.outbox.settled for s in calls.sessions):
            return
        await asyncio.sleep(0.02)
    log.warning("edge.unflushed", calls=sum(not s.outbox.settled for s in calls.sessions))


def _spare_the_collector() -> None:
    """A full collection of what was imported would make every call late: it is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def _on_turn_error(turn: Turn, error: Exception) -> None:
    session = getattr(turn, "__self__", None)
    log.error("call.failed", call=getattr(session, "call", ""), exc_info=error)


def main() -> int:
    """0 after an orderly stop; 2 where a setting or the control plane says no."""
    try:
        settings = EdgeSettings.from_env()
        logs.configure(settings.log_format)
        uvloop.run(serve(settings))
    except (SettingsError, Refused) as error:
        sys.stderr.write(f"voxplane edge: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(
            f"voxplane edge: {error.strerror or error}: choose other ports or another VOXPLANE_EDGE_DATA\n"
        )
        return 2
    return 0
