"""``make static``: everything but edges, callers and backends is killed for ten minutes, and the calls go on.

All API instances, PostgreSQL and every Valkey get SIGKILL; later an edge does. Meanwhile every second of audio is counted, and
callers that hold a ticket attach. Then all is started again on the same data, and what everybody saw is judged (`rules`, and the
breaches below). ``MINUTES`` (10), ``CALLS`` (12, at least 3), ``TICKETS`` (4, at least 2). Exit code 1 where something was breached.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.local.process import works_in
from app.local.receiver import WebhookReceiver
from tests.chaos import report
from tests.chaos.callers import REGIONS
from tests.chaos.collect import complete, until_quiet
from tests.chaos.history import History, Hook, Violation
from tests.chaos.readers import follow
from tests.chaos.rules import check
from tests.chaos.steady import SteadyBackend, SteadyCall
from voxplane import AsyncClient, CallLost, CallRefused

MINUTES = 10.0
CALLS, TICKETS = 12, 4
ATTACH_WITHIN_S = 900
"""The longest that a deployment may allow a ticket for its first attach."""
FLUENT_S = 3.0
KILL_AT, LAST_ATTACH_AT, HANG_UP_AT = 0.3, 0.5, 0.6
"""Parts of the outage: an edge dies, the last tickets are used, a caller hangs up."""
FAILOVER_S = 3.0
FRAMES_PER_S_MIN = 10
SILENT_SECONDS_MAX = 2
TALKATIVE, HANGS_UP = "c2", "c3"
TALKATIVE_DIGITS = 3_000
TALKATIVE_FROM_S = 45.0
"""In a shorter outage nobody can say more than an edge keeps."""
MEMORY_GROWTH_MB_MAX = 64.0
SAMPLE_EVERY_S = 1.0
WITHIN_S = 90.0


@dataclass(frozen=True, slots=True)
class Options:
    length_s: float
    calls: int = CALLS
    tickets: int = TICKETS
    fluent_s: float = FLUENT_S
    """So long all is well before the outage."""


@dataclass
class Seen:
    """`memory`: edge → megabytes, sampled while the outage lasts. `audio`: frames of each second of each direction of each call."""

    began_s: float = 0.0
    ended_s: float = 0.0
    killed: str = ""
    killed_s: float = 0.0
    memory: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    audio: list[int] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    breaches: list[Violation] = field(default_factory=list)
    history: History = field(default_factory=History)
    late: int = 0
    reconciled_s: float = 0.0

    def breach(self, what: str, call: str, detail: str) -> None:
        self.breaches.append(Violation(what, call, detail))


def say(line: str) -> None:
    print(line, flush=True)


class Unshaken(Deployment):
    """Tickets that outlast the outage."""

    def api_environment(self, port: int) -> dict[str, str]:
        return super().api_environment(port) | {"VOXPLANE_ATTACH_WITHIN_S": str(ATTACH_WITHIN_S)}


@asynccontextmanager
async def deployed(*, fsync: bool = True) -> AsyncIterator[Unshaken]:
    folder = temporary_folder("voxplane-static")
    try:
        async with Unshaken(folder, places=PLACES[:3], instances=2, fsync=fsync) as deployment:
            yield deployment  # type: ignore[misc]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def run(options: Options, deployment: Unshaken) -> Seen:
    seen = Seen()
    _, key = await deployment.create_project("static")
    async with (
        SteadyBackend().run() as backend,
        WebhookReceiver() as receiver,
        AsyncClient(deployment.api_urls, key) as client,
    ):
        receiver.secret = (await client.create_webhook(receiver.url))["secret"]
        opened = asyncio.Event()
        stream = seen.history.streams["follower"] = []
        following = asyncio.create_task(follow(deployment.api_urls, key, stream, opened))
        await opened.wait()
        calls = [await _create(client, backend, i, options) for i in range(options.calls + options.tickets)]
        try:
            await _live(options, deployment, backend, calls, seen)
            waiting = await until_quiet(
                deployment.database_url,
                deployment.operator,
                lambda: [len(stream), len({e["id"] for e in receiver.received})],
            )
            seen.reconciled_s = time.monotonic() - seen.ended_s
        finally:
            following.cancel()
            await asyncio.gather(following, *(c.close() for c in calls), return_exceptions=True)
        known = {c.kept.id: c.kept for c in calls}
        seen.history.calls, seen.late = await complete(client, deployment.database_url, known, waiting)
    seen.history.noted = backend.noted
    seen.history.hooks = [
        Hook(headers["webhook-id"], headers.get("voxplane-overtook") == "true", event)
        for headers, event in zip(receiver.headers, receiver.received, strict=True)
    ]
    seen.history.hooks_refused = receiver.faults
    _judge(calls, backend, seen)
    return seen


async def _create(client: AsyncClient, backend: SteadyBackend, number: int, options: Options) -> SteadyCall:
    """They are spread over the regions. The second types more than an edge keeps, if there is time."""
    name = f"c{number + 1}"
    near = [{"region": r, "rtt_ms": 10 + 60 * ((i - number) % 3)} for i, r in enumerate(REGIONS)]
    created = await client.create_call(
        {"url": backend.url, "parameters": {"load": name}}, latencies=near, metadata={"name": name}
    )
    talkative = name == TALKATIVE and options.length_s >= TALKATIVE_FROM_S
    fast = TALKATIVE_DIGITS / options.length_s if talkative else None
    return SteadyCall(created, name, client, digits_per_s=fast)


# ------------------------------------------------------------------------------------------------------ the outage


async def _live(
    options: Options, deployment: Unshaken, backend: SteadyBackend, calls: list[SteadyCall], seen: Seen
) -> None:
    live, held = calls[: options.calls], calls[options.calls :]
    await asyncio.gather(*(c.attach() for c in live))
    await _until(time.monotonic() + options.fluent_s)
    _kill_all_but_edges(deployment)
    seen.began_s = time.monotonic()
    seen.ended_s = seen.began_s + options.length_s
    say(f"{len(live)} calls are live, {len(held)} hold a ticket; instances, PostgreSQL and Valkey are dead")
    sampling = asyncio.create_task(_sample_memory(deployment, seen))
    try:
        await _attach(held[: len(held) // 2], seen)
        await _until(seen.began_s + options.length_s * KILL_AT)
        # not the region of the one who types the most: what it can keep is to be seen
        seen.killed, seen.killed_s = live[0].caller.region, time.monotonic()
        edge = deployment.regions[seen.killed].edge
        edge.kill()
        edge.wait()
        say(f"{seen.killed_s - seen.began_s:6.1f} s  the edge of {seen.killed} is dead as well")
        await _until(seen.began_s + options.length_s * LAST_ATTACH_AT)
        await _attach(held[len(held) // 2 :], seen)
        await _until(seen.began_s + options.length_s * HANG_UP_AT)
        await live[2].hang_up()
        await _until(seen.ended_s)
        seen.ended_s = time.monotonic()
        for call in calls:
            if call is not live[2] and (call.attached_s is None or call.caller.over):
                seen.breach("went_on", call.kept.id, f"{call.name} did not outlast the outage")
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    say(f"{seen.ended_s - seen.began_s:6.1f} s  everything is started again")
    mended = await deployment.mend()
    say(f"{time.monotonic() - seen.began_s:6.1f} s  {len(mended)} parts are back")
    await _reconciled(calls, live[2], seen)
    await asyncio.gather(*(c.hang_up() for c in calls if c is not live[2] and c.attached_s is not None))


def _kill_all_but_edges(deployment: Unshaken) -> None:
    assert deployment.postgres is not None
    engines = [r.valkey for r in deployment.regions.values() if r.valkey is not None]
    data = deployment.postgres.folder / "data"
    processes = [*deployment.apis, deployment.postgres.process, *(v.process for v in engines)]
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
    # those of PostgreSQL's that are in the middle of a statement would still commit it
    while any(works_in(int(p), data) for p in os.listdir("/proc") if p.isdigit()):
        time.sleep(0.01)


async def _attach(calls: list[SteadyCall], seen: Seen) -> None:
    for call in calls:
        try:
            await call.attach()
            say(f"{time.monotonic() - seen.began_s:6.1f} s  {call.name} attaches in {call.caller.region}")
        except (CallRefused, CallLost) as error:
            seen.breach("attaches", call.kept.id, f"{call.name} was placed in {call.first_region}: {error}")


async def _sample_memory(deployment: Unshaken, seen: Seen) -> None:
    """Until cancelled."""
    while True:
        for region, up in deployment.regions.items():
            if up.edge.poll() is None:
                statm = Path(f"/proc/{up.edge.pid}/statm").read_text()
                seen.memory[region].append(int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
        await asyncio.sleep(SAMPLE_EVERY_S)


async def _reconciled(calls: list[SteadyCall], hung_up: SteadyCall, seen: Seen) -> None:
    """Every caller is told that what it knows of is durable."""
    deadline_s = time.monotonic() + WITHIN_S
    for call in calls:
        if call is hung_up or call.attached_s is None:
            continue
        wanted = call.caller.written.get(call.caller.epoch, 0)
        while not call.caller.over and (call.caller.epoch, wanted) > max(call.kept.acked, default=(0, 0)):
            if time.monotonic() > deadline_s:
                seen.breach(
                    "reconciles",
                    call.kept.id,
                    f"{call.name}: {wanted} is not durable, {call.kept.acked[-1:]} is",
                )
                return
            await asyncio.sleep(0.05)


async def _until(moment_s: float) -> None:
    while (left_s := moment_s - time.monotonic()) > 0:
        await asyncio.sleep(left_s)


# ---------------------------------------------------------------------------------------------------- the judgement


def _judge(calls: list[SteadyCall], backend: SteadyBackend, seen: Seen) -> None:
    seen.breaches += check(seen.history)
    for call in calls:
        if call.kept.end_reason != "caller_hung_up" or call.kept.waiting:
            seen.breach(
                "ended_rightly", call.kept.id, f"{call.name}: {call.kept.end_reason} {call.kept.waiting}"
            )
        _judge_audio(call, backend, seen)
        if call.attached_s is not None:
            seen.gaps_s += [g.audio_gap_s for g in call.caller.gaps if g.audio_gap_s is not None]
        _judge_numbers(call, seen)
    for region, sizes in seen.memory.items():
        if sizes and max(sizes) - sizes[0] > MEMORY_GROWTH_MB_MAX:
            seen.breach("memory", "", f"the edge of {region} grew from {sizes[0]:.0f} to {max(sizes):.0f} MB")


def _judge_audio(call: SteadyCall, backend: SteadyBackend, seen: Seen) -> None:
    """Both directions, in every second but those of its own failover."""
    for way, frames in spans(call, backend, seen).items():
        silent = 0
        seen.audio += [count for _, count in frames]
        for second, count in frames:
            silent = silent + 1 if count < FRAMES_PER_S_MIN else 0
            if silent > SILENT_SECONDS_MAX:
                at_s = second - seen.began_s
                seen.breach(
                    "audio", call.kept.id, f"{call.name} {way}: {silent} s of silence at {at_s:.0f} s"
                )
                break


def spans(call: SteadyCall, backend: SteadyBackend, seen: Seen) -> dict[str, list[tuple[int, int]]]:
    """Direction → (second, frames), for as long as the call was there and its edge was not just being lost."""
    if call.attached_s is None:
        return {}
    from_s = max(seen.began_s, call.attached_s + 1)
    ended_s = (
        seen.began_s + (seen.ended_s - seen.began_s) * HANG_UP_AT if call.name == HANGS_UP else seen.ended_s
    )
    moved = [gap.lost_at_s for gap in call.caller.gaps]

    def counted(second: int) -> bool:
        return not any(lost_s - 1 <= second <= lost_s + FAILOVER_S for lost_s in moved)

    heard = backend.heard.get(call.name)
    ways = {"from the agent": call.heard, "to the agent": heard} if heard else {"from the agent": call.heard}
    return {way: [f for f in s.between(from_s, ended_s) if counted(f[0])] for way, s in ways.items()}


def _judge_numbers(call: SteadyCall, seen: Seen) -> None:
    """Of every owner, all numbers up to the last that its caller knew of are in the log, once, or said to be lost."""
    if call.attached_s is None:
        return
    stored: dict[int, set[int]] = defaultdict(set)
    for event in call.kept.events:
        if event.origin is not None:
            stored[event.origin[0]].add(event.origin[1])
        if event.type == "events.lost":
            stored[event.data["epoch"]] |= set(range(event.data["from_n"], event.data["to_n"] + 1))
    lost = any(e.type == "events.lost" for e in call.kept.events)
    if lost and not call.caller.gaps and call.name != TALKATIVE:
        seen.breach(
            "every_event", call.kept.id, f"{call.name} was kept short by an edge that lived and had room"
        )
    for epoch, last in call.caller.written.items():
        adopted = sum(
            e.epoch == epoch and e.origin is not None and e.origin[0] != epoch for e in call.kept.events
        )
        missing = sorted(set(range(1, last + 1)) - stored[epoch])
        # adopted events keep their origin, and take up the numbers behind the takeover
        if missing != list(range(2, 2 + adopted)):
            seen.breach(
                "every_event",
                call.kept.id,
                f"{call.name} epoch {epoch}: of {last}, {missing[:20]} are not in the log",
            )


# ------------------------------------------------------------------------------------------------------- the report


def table(seen: Seen) -> str:
    events = [e for c in seen.history.calls for e in c.events]
    lost = [e for e in events if e.type == "events.lost"]
    dropped = sum(e.data["to_n"] - e.data["from_n"] + 1 for e in lost)
    thin = sum(count < FRAMES_PER_S_MIN for count in seen.audio)
    rows = [
        ("outage", f"{seen.ended_s - seen.began_s:.0f} s; the edge of {seen.killed} died after {seen.killed_s - seen.began_s:.0f} s"),
        ("calls", f"{len(seen.history.calls)}"),
        ("seconds of audio", f"{len(seen.audio)}, both directions; {thin} with less than {FRAMES_PER_S_MIN} of 50 frames"),
        ("failovers", f"{len(seen.gaps_s)}; the longest gap {max(seen.gaps_s, default=0) * 1000:.0f} ms"),
        ("events", f"{len(events)}, {seen.late} kept as late; {dropped} given up in {len(lost)} events.lost"),
        ("webhooks", f"{len({h.message_id for h in seen.history.hooks})}, {len(seen.history.hooks)} with repeats"),
        ("reconciled", f"{seen.reconciled_s:.1f} s after the outage"),
        *((f"memory of {r}", f"{s[0]:.0f} to {max(s):.0f} MB") for r, s in sorted(seen.memory.items()) if s),
    ]  # fmt: skip
    return "\n".join(f"  {name:28} {value}" for name, value in rows)


def main() -> int:
    try:
        options = Options(
            length_s=float(os.environ.get("MINUTES") or MINUTES) * 60,
            calls=max(3, int(os.environ.get("CALLS") or CALLS)),
            tickets=max(2, int(os.environ.get("TICKETS") or TICKETS)),
        )
    except ValueError as error:
        sys.stderr.write(f"MINUTES, CALLS and TICKETS are numbers: {error}\n")
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_main(options))
        except (asyncio.CancelledError, KeyboardInterrupt):
            return 130


async def _main(options: Options) -> int:
    told = asyncio.current_task()
    assert told is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.cancel)
    async with deployed() as deployment:
        seen = await run(options, deployment)
        if seen.breaches:
            kept = Path("build/static-logs")
            kept.mkdir(parents=True, exist_ok=True)
            for log in deployment.folder.glob("*.log"):
                shutil.copy(log, kept)
            say(f"{kept} has the logs")
    say(table(seen))
    say(report.verdict(seen.breaches, seen.history))
    return 1 if seen.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
