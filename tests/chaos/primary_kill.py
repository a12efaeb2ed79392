"""``python -m tests.chaos.primary_kill --count 50``: the primary is killed again and again under load, and nothing is lost.

Real processes: three PostgreSQL under Patroni with etcd, two API instances, edges, an uplink that appends, creates over
REST, a webhook endpoint, a reader of the stream, a call with audio. Every second kill takes the primary's Patroni too, as
the loss of its machine would. At the end both standbys are killed: nothing may be acknowledged, and the call carries on.
Exit code 0 where every answer is accounted for. What the processes said is kept in ``build/ha-proof`` where one is not, or
where a failover took so long that one wants to know why.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from app.local.caller_script import Talker
from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.local.process import EngineError
from app.local.receiver import WebhookReceiver
from app.primary import Hosts
from regions.wire import ids
from tests.chaos.account import Stored, check_acknowledged, check_created, check_delivered, check_log
from tests.chaos.load import REGION, Creator, Reader, Writer, wait, writer
from tests.e2e.test_failover import RATE_HZ, ToneBackend
from voxplane import AsyncCaller, AsyncClient

CALLS = 48
BACK_WITHIN_S = 60.0
DRAIN_WITHIN_S = 60.0
STILL_S = 30.0
SETTLE_WITHIN_S = 600.0
STEADY_S = 1.0
NOTHING_FOR_S = 12.0
SLOW_S = {"server": 5.0, "machine": 25.0}
KEPT = Path("build/ha-proof")
IN_FLIGHT_S = 6.0
"""Longer than any deadline on an answer: what was on its way when the standbys died is answered by then."""

SELECT_LOG = "select call_id, seq, id, origin_n from vx.events where project_id = $1 order by call_id, seq"
SELECT_CREATED = "select id from vx.calls where project_id = $1 and metadata ->> 'load' = 'create'"


@dataclass
class Proof:
    deployment: Deployment
    writer: Writer
    creator: Creator
    reader: Reader
    receiver: WebhookReceiver
    project: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    failovers_s: dict[str, list[float]] = field(default_factory=lambda: {"server": [], "machine": []})
    rejoins_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def kill_primary(self, number: int) -> None:
        """Even numbers: the server alone; odd: its Patroni too. Returns when all three stand again."""
        cluster = self.deployment.cluster
        assert cluster is not None
        leader = await cluster.until_whole()
        member = cluster.members[leader]
        kind = "machine" if number % 2 else "server"
        began_s = time.monotonic()
        for pid in [member.patroni_pid] * (kind == "machine") + [member.postgres_pid]:
            os.kill(pid, signal.SIGKILL)
        took_s = await self._until_acknowledged(began_s)
        self.failovers_s[kind].append(took_s)
        back_s = time.monotonic()
        await member.revive()
        now = await cluster.until_whole()
        self.rejoins_s.append(time.monotonic() - back_s)
        print(
            f"  {number + 1:>3} {_clock(began_s)} {leader} ({kind}) killed: {now} leads, acknowledged again after {took_s:.1f} s,"
            f" whole {self.rejoins_s[-1]:.1f} s later; {sum(self.writer.durable.values())} events, {len(self.creator.made)} creates",
            flush=True,
        )
        await wait(STEADY_S)

    async def lose_both_standbys(self, talker: Talker) -> None:
        """Nothing is acknowledged while they are away; a call goes on; when they return, all of it is."""
        cluster = self.deployment.cluster
        assert cluster is not None
        leader = await cluster.until_whole()
        standbys = [m for name, m in cluster.members.items() if name != leader]
        for member in standbys:
            for pid in (member.patroni_pid, member.postgres_pid):
                os.kill(pid, signal.SIGKILL)
        await wait(IN_FLIGHT_S)
        acked, made = dict(self.writer.durable), len(self.creator.made)
        delivered, heard = (len(self.receiver.received), len(self.reader.got)), time.monotonic()
        await wait(NOTHING_FOR_S)
        if dict(self.writer.durable) != acked or len(self.creator.made) != made:
            self.faults.append("something was acknowledged with both standbys dead")
        if (len(self.receiver.received), len(self.reader.got)) != delivered:
            self.faults.append("something was delivered with both standbys dead")
        frames = sum(1 for at in talker.heard if at > heard)
        if frames < NOTHING_FOR_S * 25:
            self.faults.append(f"the call had {frames} frames in {NOTHING_FOR_S:g} s")
        back_s = time.monotonic()
        for member in standbys:
            await member.revive()
        took_s = await self._until_acknowledged(back_s)
        print(
            f"  both standbys dead for {IN_FLIGHT_S + NOTHING_FOR_S:g} s: nothing acknowledged or delivered in the last"
            f" {NOTHING_FOR_S:g} s, the call had {frames} frames; acknowledged again {took_s:.1f} s after their start",
            flush=True,
        )
        await cluster.until_whole()

    async def settle(self) -> None:
        """Everything that was begun is carried to its end; then every answer is accounted for."""
        rows, calls = await self._until_delivered()
        self.faults += check_log(rows)
        self.faults += check_acknowledged(rows, self.writer.sent, self.writer.durable)
        self.faults += check_created(rows, calls, self.creator.made)
        self.faults += check_delivered(rows, self.reader.got, "stream", once=True)
        self.faults += check_delivered(rows, self.receiver.received, "webhooks", once=False)
        self.faults += [f"a webhook was not genuine: {code}" for code in self.receiver.faults]
        if self.creator.contradicted:
            self.faults.append(f"{self.creator.contradicted} keys were answered with two calls")
        if self.creator.strange:
            self.faults.append(f"{len(self.creator.strange)} creates were answered {self.creator.strange[0]}")
            for file in self.deployment.folder.glob("api-*.log"):
                failed = [line for line in file.read_text().splitlines() if "request.failed" in line]
                print("\n".join(failed[:3]), flush=True)
        if set(self.writer.answers) - {"durable", "busy"}:
            self.faults.append(f"the uplink was answered {self.writer.answers}")

    async def _until_delivered(self) -> tuple[list[Stored], set[str]]:
        """The log, once all of it has come to the endpoint and the reader, or nothing has come for `STILL_S`."""
        began_s = moved_s = time.monotonic()
        before = (0, 0)
        while True:
            rows, calls = await self._read_log()
            came = (len({e["id"] for e in self.receiver.received}), len(self.reader.got))
            now_s = time.monotonic()
            moved_s, before = (now_s, came) if came != before else (moved_s, before)
            if min(came) >= len(rows) or now_s > min(moved_s + STILL_S, began_s + SETTLE_WITHIN_S):
                print(f"delivered {now_s - began_s:.0f} s after the load has ended: {came} of {len(rows)}")
                return rows, calls
            await wait(1.0)

    def slow(self) -> bool:
        return any(max(took, default=0.0) > SLOW_S[kind] for kind, took in self.failovers_s.items())

    async def _until_acknowledged(self, since_s: float) -> float:
        """Until an append that was sent afterwards is acknowledged, and a create."""

        def back() -> float | None:
            appended = next((at for sent, at in self.writer.acks if sent > since_s), None)
            created = next((at for at in self.creator.created_s if at > since_s), None)
            return max(appended, created) - since_s if appended and created else None

        return await until(back, "acknowledged again", BACK_WITHIN_S)

    async def _read_log(self) -> tuple[list[Stored], set[str]]:
        connection = await Hosts(self.deployment.database_url).connect()
        try:
            project = ids.decode(ids.PROJECT, self.project)
            rows = await connection.fetch(SELECT_LOG, project)
            calls = await connection.fetch(SELECT_CREATED, project)
        finally:
            await connection.close()
        stored = [
            Stored(
                ids.encode(ids.CALL, r["call_id"]), r["seq"], ids.encode(ids.EVENT, r["id"]), r["origin_n"]
            )
            for r in rows
        ]
        return stored, {ids.encode(ids.CALL, r["id"]) for r in calls}

    def report(self, count: int, took_s: float) -> None:
        print(f"{count} kills in {took_s:.0f} s; answers to the uplink: {self.writer.answers}")
        print(f"creates that were refused and sent again: {self.creator.refused}")
        for kind, seconds in self.failovers_s.items():
            if seconds:
                print(
                    f"failover, {kind:<8} p50 {statistics.median(seconds):5.1f} s  max {max(seconds):5.1f} s  ({len(seconds)})"
                )
        if self.rejoins_s:
            print(
                f"rejoin             p50 {statistics.median(self.rejoins_s):5.1f} s  max {max(self.rejoins_s):5.1f} s"
            )
        print(
            f"{sum(self.writer.durable.values())} events and {len(self.creator.made)} creates acknowledged, "
            f"{len(self.receiver.received)} webhooks and {len(self.reader.got)} stream events delivered"
        )
        print(
            "every answer is accounted for" if not self.faults else "FAULTS:\n  " + "\n  ".join(self.faults),
            flush=True,
        )


async def until(value: Callable[[], float | None], what: str, within_s: float) -> float:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if (found := value()) is not None:
            return found
        await wait(0.02)
    raise AssertionError(f"not {what} within {within_s:g} s")


async def prove(count: int, *, standbys: bool) -> int:
    began_s = time.monotonic()
    folder = temporary_folder("voxplane-ha-proof")
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        deployment = await stack.enter_async_context(
            Deployment(folder, places=PLACES[:1], instances=2, ha=True, capacity_calls=10_000)
        )
        proof, talker, tasks = await _load(stack, deployment)
        print(f"three servers, two instances, load on: {time.monotonic() - began_s:.0f} s", flush=True)
        try:
            for number in range(count):
                await proof.kill_primary(number)
            if standbys:
                await proof.lose_both_standbys(talker)
        finally:
            proof.stop.set()
            if sys.exc_info()[0] is not None or proof.slow():
                _keep_logs(folder)
            async with asyncio.timeout(DRAIN_WITHIN_S):
                await asyncio.gather(*tasks)
        await proof.settle()
        proof.report(count, time.monotonic() - began_s)
        if proof.faults:
            _keep_logs(folder)
    return 1 if proof.faults else 0


async def _load(
    stack: AsyncExitStack, deployment: Deployment
) -> tuple[Proof, Talker, list[asyncio.Task[None]]]:
    """The audio call belongs to a project of its own: what the caller's edge writes is not what is counted."""
    project, key = await deployment.create_project("proof")
    _, other = await deployment.create_project("audio")
    receiver = await stack.enter_async_context(WebhookReceiver())
    client = await stack.enter_async_context(AsyncClient(deployment.api_urls, key))
    receiver.secret = (await client.create_webhook(receiver.url))["secret"]
    edge = writer(deployment, deployment.folder)
    await edge.register()
    proof = Proof(deployment, edge, Creator(deployment, key), Reader(client), receiver, project)
    reading = asyncio.create_task(proof.reader.run())
    stack.push_async_callback(_end, reading)
    await proof.reader.open.wait()
    tasks = [asyncio.create_task(edge.run(proof.stop))]
    deadline = time.monotonic() + BACK_WITHIN_S
    while len(edge.calls) < CALLS:
        try:
            made = await client.create_call("ws://127.0.0.1:9/", regions={"pin": REGION})
            edge.calls.append(made["id"])
        except Exception:
            # the region is placed on once its edge has been heard
            if time.monotonic() > deadline:
                raise
            await wait(0.1)
    tasks.append(asyncio.create_task(proof.creator.run(proof.stop)))
    backend = await stack.enter_async_context(ToneBackend().run())
    audio = await stack.enter_async_context(AsyncClient(deployment.api_urls, other))
    call = await audio.create_call(backend.url, regions={"pin": PLACES[0].id})
    caller = await stack.enter_async_context(AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=audio))
    talker = await stack.enter_async_context(Talker(caller, RATE_HZ))
    await talker.until_heard(since=0.0)
    return proof, talker, tasks


def _keep_logs(folder: Path) -> None:
    """Every file that a process wrote for people, under its own path."""
    for log in folder.rglob("*"):
        if log.is_file() and (log.suffix == ".log" or log.parent.name == "log"):
            kept = KEPT / log.relative_to(folder)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, kept)
    print(f"what the processes said is in {KEPT}", flush=True)


def _clock(then_s: float) -> str:
    """The time of day of a monotonic time, to find it in a log."""
    return time.strftime("%H:%M:%S", time.gmtime(time.time() - (time.monotonic() - then_s)))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=50, help="how many kills")
    parser.add_argument("--no-standbys", action="store_true", help="leave out the loss of both standbys")
    given = parser.parse_args()
    try:
        return asyncio.run(prove(given.count, standbys=not given.no_standbys))
    except EngineError as error:
        print(f"ha-proof: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
