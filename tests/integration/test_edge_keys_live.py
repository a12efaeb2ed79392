"""Real edges change their keys at a real instance, and are killed, cut off and left without an answer in the midst of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.fleet.edge_keys import EdgeKeys
from app.fleet.notes import Closed
from regions.edge.identity import Identity
from regions.wire.uplink import KeyTaken
from tests.support.api import Api

pytestmark = pytest.mark.slow

OVER = "update vx.edge_keys set valid_until = clock_timestamp() - interval '1 second'"


class RealEdge:
    """A process, and its folder."""

    def __init__(self, api: Api, region: str, folder: Path, token: str) -> None:
        self.api = api
        self.region = region
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self.env = os.environ | {
            "VOXPLANE_REGION": region, "VOXPLANE_EDGE_NAME": "edge-1", "VOXPLANE_CONTROL_URLS": api.url,
            "VOXPLANE_EDGE_TOKEN": token, "VOXPLANE_EDGE_DATA": str(folder), "VOXPLANE_DRAIN_S": "0",
            "VOXPLANE_VOICE_DETECTOR": "webrtc",
        }  # fmt: skip
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen([sys.executable, "-m", "regions.edge"], env=self.env, stdout=out)

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.wait, 20)

    async def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, 20)

    async def row(self) -> dict[str, Any]:
        found = await self.api.control.db.pool("admin").fetchrow(
            "select public_key, incarnation, generation, key_misuses, key_asked_at,"
            " clock_timestamp() - seen_at < interval '2 seconds' as seen,"
            " (select count(*) from vx.edge_keys k where k.edge_id = e.id) as before"
            "  from vx.edges e where region = $1",
            self.region,
        )
        return dict(found) if found is not None else {}

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(90):
            while not ((row := await self.row()) and holds(row)):
                await asyncio.sleep(0.05)
        return row

    async def up(self, *, after: int = -1) -> dict[str, Any]:
        """Once it beats over an uplink of a generation above `after`."""
        return await self.until(lambda row: row["seen"] and row["generation"] > max(after, 0))

    def key(self) -> bytes:
        return Identity(self.folder).key.public_key().public_bytes_raw()

    async def in_place(self) -> None:
        """Until the disk has the key that the control plane has, and no other."""
        async with asyncio.timeout(30):
            while (await self.row())["public_key"] != self.key() or (self.folder / "edge.next.key").exists():
                await asyncio.sleep(0.05)


@asynccontextmanager
async def real_edge(api: Api, folder: Path) -> AsyncIterator[RealEdge]:
    region = f"r-{uuid4().hex[:8]}"
    await api.operator.post("/admin/v1/regions", json={"id": region, "jurisdiction": "us"})
    token = (await api.operator.post(f"/admin/v1/regions/{region}/enrol")).json()["token"]
    edge = RealEdge(api, region, folder / region, token)
    try:
        await edge.up()
        yield edge
    finally:
        await edge.kill()


async def over(api: Api) -> None:
    """Every overlap has ended."""
    await api.control.db.pool("admin").execute(OVER)


async def test_a_key_changes_on_demand_and_the_uplink_stays(api: Api, tmp_path: Path) -> None:
    async with real_edge(api, tmp_path) as edge:
        first = await edge.row()
        edge.process.send_signal(signal.SIGUSR1)
        second = await edge.until(lambda row: row["public_key"] != first["public_key"])
        await edge.in_place()
        listed = (await api.operator.get("/admin/v1/edges")).json()["data"]
        [id_] = [e["id"] for e in listed if e["region"] == edge.region]
        asked = await api.operator.post(f"/admin/v1/edges/{id_}/rotate-key", json={"overlap_s": 0})
        assert asked.status_code == 200, asked.text
        third = await edge.until(lambda row: row["public_key"] != second["public_key"])
        await edge.in_place()
        assert (third["generation"], third["incarnation"]) == (first["generation"], first["incarnation"])
        assert (third["before"], third["key_asked_at"]) == (2, None)
        # the new one alone lets it in again
        await over(api)
        await edge.stop()
        edge.start()
        assert (await edge.up(after=third["generation"]))["key_misuses"] == 0


Take = Callable[..., Awaitable[KeyTaken]]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["edge killed", "answer lost", "uplink lost"])
async def test_a_change_that_is_cut_off_ends_with_a_key_that_works(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, when: str
) -> None:
    """Cut off before the control plane has the key, and after; and then the overlap is over before the edge is back."""
    async with real_edge(api, tmp_path) as edge:
        first, take = await edge.row(), EdgeKeys.take
        cut = asyncio.Event()

        async def cut_off(keys: EdgeKeys, *args: Any) -> KeyTaken:
            if cut.is_set():
                return await take(keys, *args)
            cut.set()
            if when == "after":
                await take(keys, *args)
            if what == "edge killed":
                await edge.kill()
            if what == "uplink lost":
                raise Closed("shutting_down", "this instance stops", "reconnect")
            raise ConnectionError("the answer is lost")

        monkeypatch.setattr(EdgeKeys, "take", cut_off)
        edge.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(30):
            await cut.wait()
        if what == "edge killed":
            await edge.until(lambda row: (row["public_key"] != first["public_key"]) is (when == "after"))
            await over(api)
            edge.start()
        if what != "answer lost":
            await edge.up(after=first["generation"])
        await edge.until(lambda row: row["public_key"] != first["public_key"])
        await edge.in_place()
        row = await edge.row()
        assert (row["before"], row["key_misuses"]) == (1, 0)
        await over(api)
        await edge.stop()
        edge.start()
        assert (await edge.up(after=row["generation"]))["key_misuses"] == 0


async def test_a_folder_that_takes_no_key_leaves_the_edge_with_its_own(api: Api, tmp_path: Path) -> None:
    async with real_edge(api, tmp_path) as edge:
        first = await edge.row()
        # what is in the way of the file stands for a disk that is full
        (edge.folder / "edge.next.key.part").mkdir()
        edge.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(30):
            while "edge.key_not_kept" not in edge.log.read_text():
                await asyncio.sleep(0.05)
        await edge.stop()
        edge.start()
        row = await edge.up(after=first["generation"])
        assert (row["public_key"], row["before"]) == (first["public_key"], 0)
        (edge.folder / "edge.next.key.part").rmdir()
        edge.process.send_signal(signal.SIGUSR1)
        await edge.until(lambda row: row["public_key"] != first["public_key"])
        await edge.in_place()


async def test_an_old_copy_of_its_folder_is_refused_and_shows(api: Api, tmp_path: Path) -> None:
    async with real_edge(api, tmp_path) as edge:
        first = await edge.row()
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("edge.key", "edge.id"):
            (copy / name).write_bytes((edge.folder / name).read_bytes())
        edge.process.send_signal(signal.SIGUSR1)
        await edge.until(lambda row: row["public_key"] != first["public_key"])
        await edge.in_place()
        await over(api)
        env = edge.env | {"VOXPLANE_EDGE_DATA": str(copy)}
        thief = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "regions.edge"],
            env=env,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert thief.returncode == 2
        assert "replaced" in thief.stderr
        row = await edge.row()
        assert row["key_misuses"] >= 1
        assert row["incarnation"] == first["incarnation"]
