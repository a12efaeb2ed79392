"""Named workers under one supervisor. Decides when a worker is started again and what readiness says of it.

A worker is an async function of a stop event: it returns soon after the event is set. One that raises is logged,
started again after a growing pause, and turns readiness red until it has run for a while. One that was only let down by
what all of them stand on is started again soon, and readiness is left to whoever asks after that itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.telemetry import worker_restarts_total

log = structlog.get_logger()

Worker = Callable[[asyncio.Event], Awaitable[None]]

RESTART_S = (0.1, 0.5, 2.0, 5.0)
WAIT_S = 0.5
STEADY_S = 10.0
STOP_DEADLINE_S = 5.0


@dataclass(slots=True)
class _Running:
    name: str
    worker: Worker
    task: asyncio.Task[None] | None = None
    failures: int = 0
    healthy: bool = True


@dataclass(slots=True)
class Supervisor:
    """`add` before or after `start`; `stop` sets the event, waits, then cancels what did not listen.

    `waits_for`: true of an error that is not the worker's own, such as a database that is away.
    """

    waits_for: Callable[[BaseException], bool] = lambda _: False
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _running: dict[str, _Running] = field(default_factory=dict)
    _started: bool = False

    def add(self, name: str, worker: Worker) -> None:
        if name in self._running:
            raise ValueError(f"there is a worker {name} already")
        running = self._running[name] = _Running(name, worker)
        if self._started:
            running.task = asyncio.create_task(self._run(running), name=name)

    def start(self) -> None:
        self._started = True
        for running in self._running.values():
            running.task = asyncio.create_task(self._run(running), name=running.name)

    @property
    def unhealthy(self) -> list[str]:
        """Names of workers that have failed lately or ended: readiness is red while there is one."""
        return [r.name for r in self._running.values() if not r.healthy]

    async def stop(self) -> None:
        self._stop.set()
        tasks = [r.task for r in self._running.values() if r.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=STOP_DEADLINE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, running: _Running) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            began = loop.time()
            steady = loop.call_later(STEADY_S, self._mark_steady, running)
            try:
                await running.worker(self._stop)
            except Exception as error:
                if self.waits_for(error):
                    log.warning("worker.waiting", worker=running.name, error=type(error).__name__)
                    await wait_for_stop(self._stop, WAIT_S)
                    continue
                running.failures = 1 if loop.time() - began > STEADY_S else running.failures + 1
                worker_restarts_total.labels(running.name).inc()
                log.error("worker.failed", worker=running.name, failures=running.failures, exc_info=error)
            else:
                running.failures += 1
                if not self._stop.is_set():
                    worker_restarts_total.labels(running.name).inc()
            finally:
                steady.cancel()
            if self._stop.is_set():
                return
            running.healthy = False
            pause = RESTART_S[min(running.failures, len(RESTART_S)) - 1]
            await wait_for_stop(self._stop, pause)

    def _mark_steady(self, running: _Running) -> None:
        running.healthy = True
        running.failures = 0


async def wait_for_stop(stop: asyncio.Event, timeout_s: float) -> bool:
    """True as soon as `stop` is set, False after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await stop.wait()
    except TimeoutError:
        return False
    return True


async def until_stop(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """`work`, cancelled as soon as `stop` is set: for one that waits on something which no event reaches. Raises what it raises."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = working.done()
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait({working, stopping})
    if ended:
        working.result()
