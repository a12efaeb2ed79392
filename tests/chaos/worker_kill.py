"""``python -m tests.chaos.worker_kill --minutes 10``: an instance that makes deliveries is killed every ten seconds under load.

Two API instances, an edge that appends, creates over REST, a webhook endpoint. Every ten seconds one of the instances gets
SIGKILL and is started again. At the end every event of the log has come to the endpoint, in the order of its call, and genuine.
One that came twice was on its way when an instance was killed: what was claimed then is read from the database right after
each kill. Exit code 0 where that is so.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.local.process import EngineError
from app.local.receiver import WebhookReceiver
from regions.wire import ids
from tests.chaos.account import Stored, check_acknowledged, check_created, check_delivered, check_log
from tests.chaos.load import REGION, Creator, Writer, wait, writer
from voxplane import AsyncClient

CALLS = 24
EVERY_S = 10.0
STILL_S = 40.0
BACK_WITHIN_S = 30.0

SELECT_LOG = "select call_id, seq, id, origin_n from vx.events where project_id = $1 order by call_id, seq"
SELECT_CREATED = "select id from vx.calls where project_id = $1 and metadata ->> 'load' = 'create'"
SELECT_CLAIMED = "select call_id, seq from vx.deliveries where state = 'in_flight'"


@dataclass
class Proof:
    deployment: Deployment
    writer: Writer
    creator: Creator
    receiver: WebhookReceiver
    project: UUID
    connection: asyncpg.Connection
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    claimed: set[tuple[str, int]] = field(default_factory=set)
    """What was on its way at a kill."""

    async def kill(self, number: int) -> None:
        victim = self.deployment.apis[number % len(self.deployment.apis)]
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        rows = await self.connection.fetch(SELECT_CLAIMED)
        self.claimed |= {(ids.encode(ids.CALL, row["call_id"]), row["seq"]) for row in rows}
        await self.deployment.mend()
        print(
            f"  {number + 1:>3} killed with {len(rows)} on their way; {len(self.receiver.received)} webhooks",
            flush=True,
        )

    async def settle(self) -> list[str]:
        """What is not as it was promised, once everything has come, or nothing has for `STILL_S`."""
        moved_s, before = time.monotonic(), -1
        while True:
            rows, calls = await self._log()
            came = len({e["id"] for e in self.receiver.received})
            if came != before:
                moved_s, before = time.monotonic(), came
            if came >= len(rows) or time.monotonic() > moved_s + STILL_S:
                break
            await wait(1.0)
        faults = check_log(rows)
        faults += check_acknowledged(rows, self.writer.sent, self.writer.durable)
        faults += check_created(rows, calls, self.creator.made)
        faults += check_delivered(rows, self.receiver.received, "webhooks", once=False)
        faults += [f"a webhook was not genuine: {code}" for code in self.receiver.faults]
        return faults + self._doubled(len(rows))

    def _doubled(self, stored: int) -> list[str]:
        times = Counter((e["call_id"], e["seq"]) for e in self.receiver.received)
        twice = {key for key, n in times.items() if n > 1}
        extra = sum(times.values()) - len(times)
        came = f"{len(self.receiver.received)} webhooks, {extra} of them again"
        print(f"{stored} events, {came}; {len(self.claimed)} were on their way at kills")
        strange = twice - self.claimed
        return (
            [f"{len(strange)} events came twice that were not on their way at a kill, such as {min(strange)}"]
            if strange
            else []
        )

    async def _log(self) -> tuple[list[Stored], set[str]]:
        rows = await self.connection.fetch(SELECT_LOG, self.project)
        calls = await self.connection.fetch(SELECT_CREATED, self.project)
        stored = [
            Stored(
                ids.encode(ids.CALL, r["call_id"]), r["seq"], ids.encode(ids.EVENT, r["id"]), r["origin_n"]
            )
            for r in rows
        ]
        return stored, {ids.encode(ids.CALL, r["id"]) for r in calls}


async def prove(kills: int) -> int:
    folder = temporary_folder("voxplane-webhook-proof")
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        deployment = await stack.enter_async_context(
            Deployment(folder, places=PLACES[:1], instances=2, capacity_calls=10_000)
        )
        proof, tasks = await _load(stack, deployment)
        try:
            for number in range(kills):
                due_s = time.monotonic() + EVERY_S
                await proof.kill(number)
                await wait(max(0.0, due_s - time.monotonic()))
        finally:
            proof.stop.set()
            async with asyncio.timeout(BACK_WITHIN_S):
                await asyncio.gather(*tasks)
        faults = await proof.settle()
    print("every event is accounted for" if not faults else "FAULTS:\n  " + "\n  ".join(faults), flush=True)
    return 1 if faults else 0


async def _load(stack: AsyncExitStack, deployment: Deployment) -> tuple[Proof, list[asyncio.Task[None]]]:
    project, key = await deployment.create_project("proof")
    receiver = await stack.enter_async_context(WebhookReceiver())
    client = await stack.enter_async_context(AsyncClient(deployment.api_urls, key))
    receiver.secret = (await client.create_webhook(receiver.url))["secret"]
    edge = writer(deployment, deployment.folder)
    await edge.register()
    connection = await asyncpg.connect(deployment.database_url)
    stack.push_async_callback(connection.close)
    creator = Creator(deployment, key)
    proof = Proof(deployment, edge, creator, receiver, ids.decode(ids.PROJECT, project), connection)
    tasks = [asyncio.create_task(edge.run(proof.stop))]
    deadline = time.monotonic() + BACK_WITHIN_S
    while len(edge.calls) < CALLS:
        try:
            edge.calls.append((await client.create_call("ws://127.0.0.1:9/", regions={"pin": REGION}))["id"])
        except Exception:
            # the region is placed on once its edge has been heard
            if time.monotonic() > deadline:
                raise
            await wait(0.1)
    tasks.append(asyncio.create_task(creator.run(proof.stop)))
    return proof, tasks


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long; a kill every ten seconds")
    given = parser.parse_args()
    try:
        return asyncio.run(prove(max(1, round(given.minutes * 60 / EVERY_S))))
    except EngineError as error:
        print(f"webhook-proof: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
