"""Carries the schedule out: kills, stops, cuts, and mends what it broke. Everything is whole again when it returns.

Decides the order in which a fault is undone, never which one strikes (`schedule`). Says each one with its time.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from app.local.postgres import Postgres
from app.local.process import EngineError
from app.local.valkey import Valkey
from tests.chaos.deployment import Wired
from tests.chaos.schedule import Fault, links_of

MEND_AGAIN_S = 0.5
MEND_WITHIN_S = 90.0


class Backend:
    """The backend's process: on one port, in one life after the other."""

    def __init__(self, port: int, record: Path) -> None:
        self._command = [sys.executable, "-m", "tests.chaos.backend", str(port), str(record)]
        self.process = self._start()

    def mend(self) -> None:
        if self.process.poll() is not None:
            self.process = self._start()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.PIPE)


class Nemesis:
    def __init__(self, deployment: Wired, backend: Backend, say: Callable[[str], None]) -> None:
        self._deployment = deployment
        self._backend = backend
        self._say = say
        self._mending = asyncio.Lock()
        self._stopped: set[int] = set()
        self.struck: Counter[str] = Counter()
        self.log: list[str] = []

    async def run(self, faults: list[Fault], began_s: float) -> None:
        """`began_s`: what the faults' times count from, by the monotonic clock."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            for fault in faults:
                await _until(began_s + fault.at_s)
                line = f"{time.monotonic() - began_s:7.1f} s  {fault}"
                self.log.append(line)
                self._say(line)
                self.struck[f"{fault.kind} {_noun(fault.target)}"] += 1
                under_way.add(asyncio.create_task(self._strike(fault)))
            if under_way:
                await asyncio.wait(under_way)
            for task in under_way:
                task.result()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await self.mend_all()

    async def mend_all(self) -> None:
        """No link is cut, nothing is stopped, and what has ended runs again."""
        network = self._deployment.network
        names = list(network.wires)
        for region in self._deployment.regions:
            self._signal(f"edge:{region}", signal.SIGCONT)
            self._signal(f"valkey:{region}", signal.SIGCONT)
        for i in range(len(self._deployment.apis)):
            self._signal(f"api:{i}", signal.SIGCONT)
        await network.delay(names, 0.0)
        await network.heal(names)
        await self._mend()

    async def _strike(self, fault: Fault) -> None:
        network = self._deployment.network
        if fault.kind in ("kill", "stop"):
            await self._hurt(fault)
            return
        names = links_of(fault.target, list(network.wires))
        match fault.kind:
            case "reset":
                await network.reset(names)
                return
            case "cut":
                await network.cut(names, fault.way)
            case "slow":
                await network.delay(names, fault.ms)
        try:
            await _until(time.monotonic() + fault.for_s)
        finally:
            await network.delay(names, 0.0)
            await network.heal(names)

    async def _hurt(self, fault: Fault) -> None:
        if fault.kind == "stop":
            self._signal(fault.target, signal.SIGSTOP)
            try:
                await _until(time.monotonic() + fault.for_s)
            finally:
                self._signal(fault.target, signal.SIGCONT)
            return
        self._signal(fault.target, signal.SIGKILL)
        await _until(time.monotonic() + fault.for_s)
        await self._mend()

    async def _mend(self) -> None:
        """Tries again where a part that the others need is away itself."""
        async with self._mending, asyncio.timeout(MEND_WITHIN_S):
            self._backend.mend()
            while True:
                try:
                    await self._deployment.mend()
                    return
                except (EngineError, httpx.HTTPError) as error:
                    self._say(f"           mending: {type(error).__name__} {str(error)[:120]}")
                await asyncio.sleep(MEND_AGAIN_S)

    def _signal(self, target: str, number: signal.Signals) -> None:
        """Nothing where it is just being started again."""
        process = self._process(target)
        if process is not None:
            process.send_signal(number)

    def _process(self, target: str) -> subprocess.Popen[bytes] | None:
        kind, _, which = target.partition(":")
        deployment = self._deployment
        match kind:
            case "edge":
                return deployment.regions[which].edge
            case "api":
                return deployment.apis[int(which)]
            case "backend":
                return self._backend.process
            case "valkey":
                engine: Valkey | Postgres | None = deployment.regions[which].valkey
            case _:
                engine = deployment.postgres
        return engine.process if engine is not None and engine.running else None


async def _until(moment_s: float) -> None:
    """By the monotonic clock."""
    while (left_s := moment_s - time.monotonic()) > 0:
        await asyncio.sleep(left_s)


def _noun(target: str) -> str:
    """The kind of target, for the summary."""
    kind = target.partition(":")[0]
    if ">" not in target:
        return kind
    if "|" in target:
        return "region"
    source, _, sink = target.partition(">")
    left = {"caller": "callers", "edges": "edges"}.get(
        source, "instance" if source.startswith("api") else "edge"
    )
    right = sink.partition(".")[0]
    right = "instance" if right.startswith("api-") and right != "api-*" else right
    right = {"api-*": "all instances", "postgres": "postgres", "valkey": "valkey", "backend": "backend"}.get(
        right, right
    )
    return f"{left}>{'edge' if source == 'caller' else right}"
