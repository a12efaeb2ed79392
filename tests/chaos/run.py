"""One run: the deployment, the load, the faults, the quiet, the judgement. The glue of everything beside it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.local.folder import temporary_folder
from app.local.process import free_port
from app.local.receiver import WebhookReceiver
from tests.chaos import report
from tests.chaos.callers import Load
from tests.chaos.collect import complete, until_quiet
from tests.chaos.deployment import INSTANCES, Wired
from tests.chaos.history import History, Hook, Violation
from tests.chaos.logs import complaints
from tests.chaos.nemesis import Backend, Nemesis
from tests.chaos.network import running_network
from tests.chaos.readers import follow, look
from tests.chaos.record import read_record
from tests.chaos.rules import check
from tests.chaos.schedule import plan
from voxplane import AsyncClient

FOLLOWERS = 2
LOGS_KEPT_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """`lines`: how many calls stand at once. `keep_logs`: also where no rule was broken."""

    seed: int
    minutes: float
    lines: int
    keep_logs: bool
    out: Path


def say(line: str) -> None:
    print(line, flush=True)


@asynccontextmanager
async def deployed() -> AsyncIterator[Wired]:
    folder = temporary_folder("voxplane-chaos")
    try:
        async with running_network() as network, Wired(folder, network) as deployment:
            yield deployment  # type: ignore[misc]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def run(options: Options) -> list[Violation]:
    told = asyncio.current_task()
    assert told is not None
    # whoever ends us gets everything cleared away all the same
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.cancel)
    say(f"chaos: seed {options.seed}, {options.minutes:g} minutes, {options.lines} calls at once")
    async with deployed() as deployment:
        try:
            return await _run(options, deployment)
        except Exception:
            _keep_logs(options, deployment)
            raise


async def _run(options: Options, deployment: Wired) -> list[Violation]:
    _, key = await deployment.create_project("chaos")
    port, record = free_port(), deployment.folder / "record.jsonl"
    wire = await deployment.network.open("edges>backend", port)
    backend = Backend(port, record)
    history, began_s = History(), time.monotonic()
    try:
        async with WebhookReceiver() as receiver, AsyncClient(deployment.api_urls, key) as client:
            receiver.secret = (await client.create_webhook(receiver.url))["secret"]
            agents = [f"ws://127.0.0.1:{p}/" for p in (port, port, wire.port)]
            load = Load(deployment.api_urls, key, agents, options.seed, options.lines)
            nemesis = Nemesis(deployment, backend, say)
            readers = await _start_readers(deployment, key, load, history, options.seed)
            try:
                await _strike(options, deployment, load, nemesis)
                say(f"{time.monotonic() - began_s:7.1f} s  the faults are over; waiting for quiet")
                waiting = await until_quiet(
                    deployment.database_url,
                    deployment.operator,
                    lambda: [*map(len, history.streams.values()), _distinct(receiver)],
                )
                say(f"{time.monotonic() - began_s:7.1f} s  quiet")
            finally:
                for task in readers:
                    task.cancel()
                ended = await asyncio.gather(*readers, return_exceptions=True)
            for result in ended:
                if isinstance(result, Exception):
                    raise result
            history.calls, late = await complete(client, deployment.database_url, load.calls, waiting)
            history.hooks = [
                Hook(headers["webhook-id"], headers.get("voxplane-overtook") == "true", event)
                for headers, event in zip(receiver.headers, receiver.received, strict=True)
            ]
            history.hooks_refused = receiver.faults
    finally:
        backend.stop()
    history.noted = read_record(record)
    violations = check(history)
    complained = complaints(deployment.folder)
    seconds = time.monotonic() - began_s
    say(report.table(history, load.counts, nemesis.struck, complained, late=late, seconds=seconds))
    say(report.verdict(violations, history))
    if violations:
        file = options.out / f"chaos-{options.seed}.json"
        report.write(file, options.seed, nemesis.log, violations, history)
        say(report.first_history(violations, history))
        say(f"{file} has the histories; the same faults again: make chaos SEED={options.seed}")
    if violations or options.keep_logs:
        _keep_logs(options, deployment)
    return violations


def _distinct(receiver: WebhookReceiver) -> int:
    return len({e["id"] for e in receiver.received})


async def _strike(options: Options, deployment: Wired, load: Load, nemesis: Nemesis) -> None:
    """The load runs for as long as the faults strike, and ends its calls once all is mended."""
    length_s = options.minutes * 60
    faults = plan(options.seed, length_s, [p.id for p in deployment.places], INSTANCES)
    began_s = time.monotonic()
    running = asyncio.create_task(load.run())
    striking = asyncio.create_task(nemesis.run(faults, began_s))
    try:
        await asyncio.wait({running, striking}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        await striking
        while time.monotonic() < began_s + length_s:
            await asyncio.sleep(0.1)
        load.stop()
        await running
    finally:
        for task in (running, striking):
            task.cancel()
        await asyncio.gather(running, striking, return_exceptions=True)


async def _start_readers(
    deployment: Wired, key: str, load: Load, history: History, seed: int
) -> list[asyncio.Task[None]]:
    """Each follower begins at another instance; the calls begin once all follow."""
    tasks = []
    opened = []
    for i in range(FOLLOWERS):
        seen = history.streams[f"follower-{i}"] = []
        urls = deployment.api_urls[i % INSTANCES :] + deployment.api_urls[: i % INSTANCES]
        opened.append(asyncio.Event())
        tasks.append(asyncio.create_task(follow(urls, key, seen, opened[-1])))
    for event in opened:
        await event.wait()
    tasks.append(asyncio.create_task(look(deployment.api_urls, key, load, history.reads, seed)))
    return tasks


def _keep_logs(options: Options, deployment: Wired) -> None:
    """What the processes said, where somebody has to find out why."""
    kept = options.out / f"chaos-{options.seed}-logs"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in deployment.folder.glob("*.log"):
        if log.stat().st_size < LOGS_KEPT_BYTES:
            shutil.copy(log, kept)
    say(f"{kept} has the logs")
