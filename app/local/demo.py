"""``voxplane demo``: the main job, for the eye. A real call, spoken and answered offline, survives the death of its region.

Decides the script and what counts as proof; everything it starts is real and its own, and is gone afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.local.caller_script import Talker
from app.local.certificates import LocalTls
from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.local.process import Account, EngineError, start, stop
from app.local.proof import check_events, check_webhooks
from app.local.receiver import WebhookReceiver
from app.local.report import print_report
from app.local.speak import read_wav
from voxplane import AsyncCaller, AsyncClient

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "order_status"
LINES = {
    "ask": "what is the status of order one five eight",
    "interrupt": "when will it arrive",
    "remember": "which order did i ask about",
    "goodbye": "thank you goodbye",
}
RATE_HZ = 16_000
BACKEND_WITHIN_S = 20.0
WEBHOOKS_WITHIN_S = 15.0
KNOWN = "one five eight"


@dataclass(slots=True)
class Outcome:
    """What the demo has seen. Times in milliseconds."""

    call: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float | None] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    webhooks: int = 0
    killed: str = ""
    went_to: str = ""
    took_s: float = 0.0


class Demo:
    def __init__(self, say: Any, *, tls: bool = False) -> None:
        self._say, self._tls = say, tls
        self._stack = AsyncExitStack()
        self._outcome = Outcome()

    async def run(self) -> Outcome:
        began = time.monotonic()
        if not (EXAMPLE / "backend.py").exists():
            raise EngineError(
                "no_example",
                "The demo's AI backend is not here.",
                "Run it from a checkout of the project: make demo",
            )
        folder = temporary_folder("voxplane-demo")
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        async with self._stack:
            self._say("The caller's lines and the AI backends (offline: pocketsphinx and espeak-ng)")
            lines = await asyncio.to_thread(_speak_lines, folder)
            near = await self._backend(folder, "near", "backend.py")
            far = await self._backend(folder, "far", "backend_without_kit.py")
            self._say("Engines, control plane, regions:")
            deployment = Deployment(
                folder, places=PLACES[:3], delays=True, tls=self._tls, say=lambda what: self._say(f"  {what}")
            )
            await self._stack.enter_async_context(deployment)
            if isinstance(deployment.secured, LocalTls):
                os.environ["VOXPLANE_CA_FILE"] = str(deployment.secured.ca_file)
            receiver = WebhookReceiver()
            await self._stack.enter_async_context(receiver)
            _, key = await deployment.create_project("demo")
            client = AsyncClient(deployment.api_urls, key)
            await self._stack.enter_async_context(client)
            hook = await client.create_webhook(receiver.url)
            receiver.secret = hook["secret"]
            agent = {"url": near[1], "fallback_url": far[1]}
            await self._call(client, deployment, agent, lines, near[0])
            await self._prove(client, receiver)
        self._outcome.took_s = time.monotonic() - began
        return self._outcome

    async def _call(
        self,
        client: AsyncClient,
        deployment: Deployment,
        agent: dict[str, str],
        lines: dict[str, bytes],
        near: subprocess.Popen[bytes],
    ) -> None:
        out = self._outcome
        latencies = await client.probe()
        self._say("Measured: " + ", ".join(f"{m.region} {m.rtt_ms:.0f} ms" for m in latencies))
        asked = time.monotonic()
        out.call = await client.create_call(agent, latencies=latencies, metadata={"customer": "demo"})
        self._say(f"Call {out.call['id']} placed in {out.call['region']}")
        async with AsyncCaller(out.call["ticket"], sample_rate=RATE_HZ, client=client) as caller:
            talker = Talker(caller, RATE_HZ)
            async with talker:
                await talker.until_heard(since=asked)
                out.figures["time_to_first_audio_ms"] = _ms(talker.first_frame_after(asked), asked)
                await talker.until_quiet()
                self._say(f"Caller: {LINES['ask']}")
                spoke = await talker.say(lines["ask"])
                await talker.until_heard(since=spoke)
                first = _ms(talker.first_frame_after(spoke), spoke)
                await asyncio.sleep(2.5)
                self._say(f"Caller, interrupting: {LINES['interrupt']}")
                onset = time.monotonic()
                spoke = await talker.say(lines["interrupt"])
                out.figures["barge_in_ms"] = _ms(
                    talker.last_frame_before(spoke, after=onset), onset + talker.lead_in_s
                )
                await talker.until_heard(since=spoke)
                out.figures["voice_to_voice_ms"] = _median(
                    [first, _ms(talker.first_frame_after(spoke), spoke)]
                )
                await asyncio.sleep(0.8)
                self._kill(deployment, caller, near)
                killed = time.monotonic()
                await talker.until_moved()
                self._say(
                    f"  the caller is in {caller.region}; the AI backend there has only what Voxplane kept"
                )
                out.went_to = caller.region
                gap = caller.gaps[-1]
                out.figures["failover_noticed_ms"] = _ms(gap.lost_at_s, killed)
                out.figures["failover_attached_ms"] = _ms(gap.attached_at_s, killed)
                await talker.until_notice("call.reconnected")
                out.figures["audio_gap_ms"] = _ms(talker.notice_at, gap.last_frame_at_s or killed)
                self._say(f"Caller: {LINES['remember']}")
                spoke = await talker.say(lines["remember"])
                await talker.until_heard(since=spoke)
                await talker.until_quiet()
                self._say(f"Caller: {LINES['goodbye']}")
                spoke = await talker.say(lines["goodbye"])
                await talker.until_heard(since=spoke)
                await talker.until_quiet()
                await caller.hangup()
        if caller.end_reason != "caller_hung_up":
            out.faults.append(f"the call ended with {caller.end_reason}")

    def _kill(self, deployment: Deployment, caller: AsyncCaller, near: subprocess.Popen[bytes]) -> None:
        """SIGKILL for all that the region has: its edge, its Valkey, and the AI backend that served the call."""
        region = deployment.regions[caller.region]
        self._outcome.killed = region.place.id
        self._say(f"  SIGKILL: everything in {region.place.id} (edge, Valkey, AI backend)")
        pids = [region.edge.pid, near.pid] + ([region.valkey.pid] if region.valkey else [])
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    async def _prove(self, client: AsyncClient, receiver: WebhookReceiver) -> None:
        out = self._outcome
        self._say("Checking the log and the webhooks")
        out.events = await client.events_of(out.call["id"])
        await receiver.until(len(out.events), WEBHOOKS_WITHIN_S)
        out.call = await client.get_call(out.call["id"])
        out.turns = (await client.conversation(out.call["id"]))["turns"]
        out.webhooks = len(receiver.received)
        out.faults += check_events(out.call, out.events)
        out.faults += check_webhooks(out.events, receiver.received, receiver.faults)
        out.figures["webhook_p50_ms"] = _median(receiver.latencies_ms)
        out.figures["webhook_max_ms"] = max(receiver.latencies_ms, default=None)
        moved = next((i for i, e in enumerate(out.events) if e["type"] == "call.reconnecting"), None)
        if moved is None:
            out.faults.append("the call was not moved")
            return
        later = [
            e["data"].get("text", "")
            for e in out.events[moved:]
            if e["type"] == "turn.ended" and e["data"]["role"] == "agent"
        ]
        if not any(KNOWN in text for text in later):
            out.faults.append(
                "the answer after the failover does not show the order that was asked about before"
            )

    async def _backend(self, folder: Path, name: str, program: str) -> tuple[subprocess.Popen[bytes], str]:
        """(process, its WebSocket URL)."""
        log = folder / f"backend-{name}.log"
        command = [sys.executable, "-W", "ignore", str(EXAMPLE / program), "--port", "0", "--name", name]
        process = start(Account(demote=False), command, log=log, cwd=folder)
        self._stack.push_async_callback(stop, process, signal.SIGTERM, signal.SIGTERM)
        deadline = time.monotonic() + BACKEND_WITHIN_S
        while time.monotonic() < deadline and process.poll() is None:
            first = log.read_text().partition("\n")
            if first[1]:
                return process, json.loads(first[0])["listening"]
            await asyncio.sleep(0.05)
        raise EngineError("backend", "The demo's AI backend did not start.", log.read_text()[-500:])


def _speak_lines(folder: Path) -> dict[str, bytes]:
    """The caller's audio, PCM16 at 16 kHz."""
    spoken: dict[str, bytes] = {}
    for name, text in LINES.items():
        wav = folder / f"{name}.wav"
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(EXAMPLE / "synthesis.py"),
            text,
            str(wav),
            "--voice",
            "en-gb",
            "--rate",
            str(RATE_HZ),
        ]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        if done.returncode:
            raise EngineError(
                "speech",
                f"Speech synthesis failed: {done.stderr.decode()[-300:]}",
                "Install voxplane-server[demo].",
            )
        spoken[name] = read_wav(wav)[1]
    return spoken


def _ms(at_s: float | None, since_s: float) -> float | None:
    return None if at_s is None else round((at_s - since_s) * 1000, 1)


def _median(values: list[float | None] | list[float]) -> float | None:
    known = sorted(v for v in values if v is not None)
    return known[len(known) // 2] if known else None


async def demo(*, as_json: bool, tls: bool = False) -> bool:
    """True where nothing was lost."""
    say = (lambda _: None) if as_json else (lambda what: print(what, flush=True))
    outcome = await Demo(say, tls=tls).run()
    print_report(outcome, as_json=as_json)
    return not outcome.faults
