"""Usage reconciles with the log: what the tables, the API and the CSV say is what a fold that shares no code with them says."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from app.housekeeping import DROP_USAGE
from app.ids import new_id
from app.log.append import EdgeIdentity
from regions.wire import ids
from regions.wire.events import EdgeEvent, Origin
from regions.wire.uplink import CallEvents
from tests.support.api import Api, Project
from tests.support.calls import WrittenCall, owners_in

SEEDS = (1, 2, 3)
CALLS = 14
DAY_MS = 86_400_000
BEGIN_MS = 1_700_000_000_000
WORD = (
    "caller_ms", "agent_ms", "caller_in_bytes", "caller_out_bytes", "agent_in_bytes", "agent_out_bytes", "caller_saved_bytes",
    "agent_saved_bytes",
)  # fmt: skip
SUMMED = ("calls", "owners", "incomplete", *WORD, "turns", "failovers", "moves")
GARBAGE: tuple[Any, ...] = ("x", -5, None, [1], {"a": 1}, True, 1e300, 7.9)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owners(api: Api) -> list[EdgeIdentity]:
    return await owners_in(api, ("us-east", "eu-west", "ap-south"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def superuser(api: Api) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(api.settings.database_url)
    yield connection
    await connection.close()


# ---------------------------------------------------------------------------------------------------------- histories


@dataclass
class Owner:
    """One epoch of a call: its numbers only grow."""

    epoch: int
    n: int = 0
    word: Counter[str] = field(default_factory=Counter)


async def created(project: Project, owners: list[EdgeIdentity], chance: random.Random) -> WrittenCall:
    """Near to any of the regions; its owners in the order of its epochs."""
    near = chance.sample(owners, len(owners))
    latencies = [{"region": o.region, "rtt_ms": 20 + 60 * i} for i, o in enumerate(near)]
    body = {"agent": {"url": "wss://agent.example.com/"}, "latencies": latencies}
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": uuid4().hex})
    assert made.status_code == 201, made.text
    placed = made.json()["placement"]
    order = [placed["edge"], *(s["edge"] for s in placed["standbys"])]
    granted = [next(o for o in owners if ids.encode(ids.EDGE, o.edge_id) == edge) for edge in order]
    return WrittenCall(made.json()["id"], granted, project, made.json()["ticket"])


class History:
    """A call as edges would write it: with crashes, moves, adoptions, late words and nonsense."""

    def __init__(self, api: Api, chance: random.Random, call: WrittenCall) -> None:
        self.api, self.chance, self.call = api, chance, call
        self.owner = Owner(1)
        self.at_ms = BEGIN_MS + chance.randrange(3) * DAY_MS + chance.randrange(DAY_MS)

    def event(self, type_: str, data: dict[str, Any], *, origin: Origin | None = None) -> EdgeEvent:
        self.owner.n += 1
        self.at_ms += self.chance.randrange(40_000)
        event_id = ids.encode(ids.EVENT, new_id())
        return EdgeEvent(
            n=self.owner.n, id=event_id, type=type_, at_ms=self.at_ms, data=msgspec.Raw(json.dumps(data).encode()), origin=origin
        )  # fmt: skip

    def usage(self) -> dict[str, Any]:
        for name in WORD:
            self.owner.word[name] += self.chance.randrange(1_000_000)
        said: dict[str, Any] = dict(self.owner.word)
        if self.chance.random() < 0.1:
            said[self.chance.choice(WORD)] = self.chance.choice(GARBAGE)
        return said

    def quality(self, *, final: bool = False) -> EdgeEvent:
        data: dict[str, Any] = {"usage": self.usage(), "quality": {"mos": 4.1}}
        if self.chance.random() < 0.05:
            data["usage"] = self.chance.choice(GARBAGE)
        return self.event("call.quality", data | ({"final": True} if final else {}))

    async def append(self, epoch: int, *events: EdgeEvent) -> str:
        run = CallEvents(call=self.call.id, epoch=epoch, events=list(events))
        while True:
            (status,) = await self.api.control.appender.append(self.call.owners[epoch - 1], [run])
            if status.status != "busy":
                return str(status.status)

    async def talk(self) -> None:
        for _ in range(self.chance.randrange(6)):
            made = self.chance.choice(
                (
                    lambda: self.event("turn.ended", {"role": "caller", "text": "x"}),
                    lambda: self.event(
                        "turn.interrupted", {"role": "agent", "text": "x", "utterance": 1, "offset_ms": 3}
                    ),
                    lambda: self.event("agent.connected", {"fallback": False, "resumed": False}),
                    lambda: self.event("agent.disconnected", {"clean": False}),
                    lambda: self.event(
                        "call.reconnecting", {"reason": "agent_lost", "from_epoch": 1, "to_epoch": 1}
                    ),
                    self.quality,
                )
            )()
            assert await self.append(self.owner.epoch, made) == "durable"

    async def take_over(self) -> None:
        """By the next edge; what the one before had not made durable is adopted, and what it says afterwards is late."""
        before, planned = self.owner, self.chance.random() < 0.4
        strays = [
            self.event("turn.ended", {"role": "agent", "text": "y"}) for _ in range(self.chance.randrange(3))
        ]
        if planned:
            self.owner = before
            assert await self.append(before.epoch, *strays, self.quality()) == "durable"
            strays = []
        self.owner = Owner(before.epoch + 1)
        type_ = "call.moved" if planned else "call.reconnecting"
        facts = {
            "from_epoch": before.epoch,
            "to_epoch": self.owner.epoch,
            "reason": "planned" if planned else "silent",
        }
        taken = [self.event(type_, facts | {"history": "snapshot"})]
        for stray in strays:
            self.owner.n += 1
            origin = Origin(epoch=before.epoch, n=stray.n)
            taken.append(msgspec.structs.replace(stray, n=self.owner.n, origin=origin))
        assert await self.append(self.owner.epoch, *taken) == "durable"
        if self.chance.random() < 0.5:
            await self.late_word(before)

    async def late_word(self, before: Owner) -> None:
        now, self.owner = self.owner, before
        assert await self.append(before.epoch, self.quality(final=self.chance.random() < 0.8)) == "fenced"
        self.owner = now

    async def end(self) -> None:
        how = self.chance.random()
        if how < 0.5:
            data = {"end_reason": "caller_hung_up", "usage": self.usage()}
            assert await self.append(self.owner.epoch, self.event("call.ended", data)) == "durable"
        elif how < 0.9:
            answer = await self.call.project.client.post(f"/v1/calls/{self.call.id}/end")
            assert answer.status_code == 200
            if self.chance.random() < 0.6:
                if self.chance.random() < 0.5:
                    await fold(self.api)  # what comes late changes sums that were shown
                await self.late_word(self.owner)

    async def live(self) -> None:
        if self.chance.random() < 0.9:
            answered = self.event("call.answered", {"encoding": "ulaw", "sample_rate": 8000})
            assert await self.append(1, answered) == "durable"
            await self.talk()
            for _ in range(self.chance.choice((0, 0, 1, 2))):
                await self.take_over()
                await self.talk()
        await self.end()


async def fold(api: Api) -> None:
    """Until nothing is due; the instance's own worker is at it as well."""
    pool = api.control.db.pool("worker")
    async with asyncio.timeout(30):
        while await pool.fetchval("select exists (select from vx.usage_due)"):
            await pool.fetchval("select vx.fold_usage(3)")


# ------------------------------------------------------------------------------------------------- the other fold


def count(word: Any, name: str) -> int:
    value = word.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return min(max(int(value), 0), 10**12)


def span_ms(first: datetime | None, last: datetime | None) -> int:
    if first is None or last is None:
        return 0
    return min(max((last - first) // timedelta(milliseconds=1), 0), 604_800_000)


def owner_of(facts: list[Any], late: list[Any]) -> Counter[str]:
    """What one owner has carried."""
    found: Counter[str] = Counter(owners=1)
    complete = False
    for fact in facts + late:
        data = json.loads(fact["data"]) if fact["data"] is not None else {}
        if fact["type"] in ("call.quality", "call.ended") and isinstance(data.get("usage"), dict):
            for name in WORD:
                found[name] = max(found[name], count(data["usage"], name))
            complete |= fact["type"] == "call.ended" or data.get("final") is True
    for fact in facts:
        found["turns"] += fact["type"] in ("turn.ended", "turn.interrupted")
        found["moves"] += fact["type"] == "call.moved"
        lost = fact["type"] == "call.reconnecting" and json.loads(fact["data"]).get("reason") != "agent_lost"
        found["failovers"] += lost
    if not complete:
        found["incomplete"] = 1
        times = [f["at"] for f in facts]
        newest = max(times, default=None)
        up = min((f["at"] for f in facts if f["type"] == "agent.connected"), default=None)
        down = min((f["at"] for f in facts if f["type"] == "agent.disconnected"), default=None)
        until = newest if down is None or newest is None else min(newest, down)
        found["caller_ms"] = max(found["caller_ms"], span_ms(min(times, default=None), newest))
        found["agent_ms"] = max(found["agent_ms"], span_ms(up, until))
    return found


async def fold_apart(
    connection: asyncpg.Connection[Any], project: Project
) -> dict[tuple[Any, ...], Counter[str]]:
    """Day, region, caller's region → sums, from the rows of the log."""
    project_id = ids.decode(ids.PROJECT, project.id)
    regions = {r["id"]: r["region"] for r in await connection.fetch("select id, region from vx.edges")}
    facts: dict[Any, list[Any]] = defaultdict(list)
    late: dict[Any, list[Any]] = defaultdict(list)
    for into, table in ((facts, "events"), (late, "late_events")):
        for row in await connection.fetch(f"select * from vx.{table} where project_id = $1", project_id):
            if row["origin_epoch"] is not None and (into is facts or row["type"] == "call.quality"):
                into[(row["call_id"], row["origin_epoch"])].append(row)
    sums: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    calls = await connection.fetch(
        "select * from vx.calls where project_id = $1 and ended_at is not null", project_id
    )
    for call in calls:
        nearest = min(json.loads(call["placement"])["candidates"], key=lambda c: (c["rtt_ms"], c["region"]))[
            "region"
        ]
        day = call["ended_at"].astimezone(UTC).date()
        epochs = sorted({epoch for of, epoch in (*facts, *late) if of == call["id"]})
        for epoch in epochs:
            key = (day, regions[call["grant_edges"][epoch - 1]], nearest)
            sums[key].update(owner_of(facts[(call["id"], epoch)], late[(call["id"], epoch)]))
            sums[key]["calls"] += epoch == epochs[0]
        if not epochs:
            sums[(day, call["region"], nearest)].update(calls=1)
    return sums


def as_row(sums: Counter[str]) -> dict[str, int]:
    return {name: sums[name] for name in SUMMED}


# ------------------------------------------------------------------------------------------------------------ tests


@pytest.mark.parametrize("seed", SEEDS)
async def test_usage_is_what_the_log_says_to_the_last_unit(
    api: Api, superuser: asyncpg.Connection[Any], owners: list[EdgeIdentity], seed: int
) -> None:
    chance = random.Random(seed)
    project = await api.project("live")
    for _ in range(CALLS):
        call = await created(project, owners, chance)
        await History(api, chance, call).live()
    await fold(api)
    expected = await fold_apart(superuser, project)
    total = as_row(sum(expected.values(), Counter[str]()))
    assert total["failovers"] + total["moves"] > 0 < total["incomplete"]

    stored = await superuser.fetch(
        "select * from vx.usage_days where project_id = $1", ids.decode(ids.PROJECT, project.id)
    )
    assert {(r["day"], r["region"], r["caller_to"]): {n: int(r[n]) for n in SUMMED} for r in stored if r["calls"] or r["owners"]} == {
        key: as_row(sums) for key, sums in expected.items()
    }  # fmt: skip
    prices = {
        "websocket_minute": 4_001,
        "agent_minute": 1_003,
        "egress_gb": 90_007,
        "egress_far_gb": 120_011,
        "call": 13,
        "turn": 7,
    }
    await set_prices(api, project, "2023-01-01", prices)
    asked = {"from": "2023-11-01", "to": "2023-12-01"}
    here, now = await usage_of(project, **asked), await usage_of(project)
    for then, report in ((True, here), (False, now)):
        rows = {key: sums for key, sums in expected.items() if (key[0].year == 2023) == then}
        by_day: dict[date, Counter[str]] = defaultdict(Counter)
        for (day, _, _), sums in rows.items():
            by_day[day].update(sums)
        assert {r["day"]: {n: r.get(n, 0) for n in SUMMED} for r in report["data"]} == {
            day.isoformat(): as_row(sums) for day, sums in by_day.items()
        }
        assert report["total"]["cost_micros"] == cost(rows, prices)
        assert (report["pending"], report["currency"], report["billed"]) == (0, "EUR", True)
    for group_by in ("region", "transport", "side", "region_pair"):
        other = await usage_of(project, group_by=group_by, **asked)
        assert other["total"] == here["total"]
        assert sum(r.get("caller_out_bytes", 0) for r in other["data"]) == here["total"]["caller_out_bytes"]
    text = (await project.client.get("/v1/usage", params={**asked, "format": "csv"})).text
    assert [
        {k: int(v) for k, v in line.items() if k in SUMMED} for line in csv.DictReader(io.StringIO(text))
    ] == [{n: r.get(n, 0) for n in SUMMED} for r in here["data"]]

    # each call by itself comes to the same, and so does all of it once more
    listed = (await project.client.get("/v1/calls?limit=200")).json()["data"]
    ones = [(await project.client.get(f"/v1/calls/{c['id']}/usage")).json() for c in listed if c["ended_at"]]
    assert {n: sum(o["total"][n] for o in ones) for n in SUMMED} == total
    again = await api.operator.post(f"/admin/v1/projects/{project.id}/usage/refold")
    assert (again.status_code, again.json()) == (202, {"calls": len(ones)})
    await fold(api)
    assert await usage_of(project, **asked) == here


def cost(rows: dict[tuple[Any, ...], Counter[str]], prices: dict[str, int]) -> int:
    whole = Fraction(0)
    for (_, region, nearest), s in rows.items():
        gb = prices["egress_far_gb"] if nearest != region else prices["egress_gb"]
        whole += Fraction(
            s["caller_ms"] * prices["websocket_minute"] + s["agent_ms"] * prices["agent_minute"], 60_000
        )
        whole += Fraction(s["caller_out_bytes"] * gb + s["agent_out_bytes"] * prices["egress_gb"], 10**9)
        whole += s["calls"] * prices["call"] + s["turns"] * prices["turn"]
    return int(whole + Fraction(1, 2))


async def test_a_call_whose_edge_was_years_behind_stands_in_the_sums_once(
    api: Api, owners: list[EdgeIdentity]
) -> None:
    """What is kept for four hundred days goes by the day on which the call ended, as its edge had it."""
    chance = random.Random(4)
    project = await api.project("live")
    history = History(api, chance, await created(project, owners, chance))
    answered = history.event("call.answered", {"encoding": "ulaw", "sample_rate": 8000})
    ended = history.event("call.ended", {"end_reason": "caller_hung_up", "usage": history.usage()})
    assert await history.append(1, answered, ended) == "durable"
    await fold(api)
    asked = {"from": "2023-11-01", "to": "2023-12-01"}
    once = await usage_of(project, **asked)
    assert once["total"]["calls"] == 1
    await api.control.db.pool("worker").execute(DROP_USAGE)
    again = await api.operator.post(f"/admin/v1/projects/{project.id}/usage/refold")
    assert (again.status_code, again.json()) == (202, {"calls": 1})
    await fold(api)
    assert await usage_of(project, **asked) == once


async def usage_of(project: Project, **asked: Any) -> Any:
    answer = await project.client.get("/v1/usage", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def set_prices(
    api: Api, project: Project, day: str, prices: dict[str, Any], currency: str = "EUR"
) -> Any:
    path = f"/admin/v1/projects/{project.id}/prices"
    version = (await api.operator.get(path)).headers["etag"]
    body = {"valid_from": day, "currency": currency, "prices": prices}
    return await api.operator.put(path, json=body, headers={"If-Match": version})


async def test_prices_hold_from_their_day_on_and_a_test_project_is_not_billed(
    api: Api, superuser: asyncpg.Connection[Any], owners: list[EdgeIdentity]
) -> None:
    live, test = await api.project("live"), await api.project("test")
    for project in (live, test):
        assert (await set_prices(api, project, "2020-01-01", {"call": 100})).status_code == 200
        assert (await set_prices(api, project, "2023-11-15", {"call": 7})).status_code == 200
        assert (await set_prices(api, project, "2030-01-01", {"call": 9_999})).status_code == 200
        for day in (14, 15, 16):
            await superuser.execute(
                "insert into vx.usage_days select $1, $2, 'eu-west', 'webrtc', '', '', 1" + ", 0" * 13,
                ids.decode(ids.PROJECT, project.id), date(2023, 11, day),
            )  # fmt: skip
    asked = {"from": "2023-11-14", "to": "2023-11-17"}
    billed, shown = await usage_of(live, **asked), await usage_of(test, **asked)
    assert [r["cost_micros"] for r in billed["data"]] == [100, 7, 7]
    assert (billed["total"]["cost_micros"], billed["billed"]) == (114, True)
    assert (shown["total"]["calls"], shown["total"]["cost_micros"], shown["billed"]) == (3, None, False)
    assert (await usage_of(live, group_by="region", **asked))["data"][0]["cost_micros"] == 114


async def test_days_come_in_their_order(
    api: Api, superuser: asyncpg.Connection[Any], project: Project
) -> None:
    days = [date(2024, 9, 2), date(2024, 9, 10), date(2024, 9, 30), date(2024, 10, 1), date(2024, 12, 9)]
    for day in reversed(days):
        await superuser.execute(
            "insert into vx.usage_days select $1, $2, 'eu-west', 'webrtc', '', '', 1" + ", 0" * 13,
            ids.decode(ids.PROJECT, project.id), day,
        )  # fmt: skip
    asked = {"from": "2024-09-01", "to": "2025-01-01"}
    assert [r["day"] for r in (await usage_of(project, **asked))["data"]] == [d.isoformat() for d in days]
    text = (await project.client.get("/v1/usage", params={**asked, "format": "csv"})).text
    assert [line.partition(",")[0] for line in text.splitlines()[1:]] == [d.isoformat() for d in days]


async def test_prices_that_are_none_are_refused_and_change_nothing(api: Api, project: Project) -> None:
    path = f"/admin/v1/projects/{project.id}/prices"
    good = {"valid_from": "2025-01-01", "currency": "EUR", "prices": {"call": 1}}
    assert (await api.operator.put(path, json=good)).status_code == 428
    assert (await api.operator.put(path, json=good, headers={"If-Match": '"3"'})).status_code == 412
    assert (await api.operator.put(path, json=good, headers={"If-Match": '"0"'})).status_code == 200
    for bad in (
        good | {"prices": {"call": -1}},
        good | {"prices": {"call": 10**9 + 1}},
        good | {"prices": {"call": 10**30}},
        good | {"prices": {"call": 0.5}},
        good | {"prices": {"minute": 1}},
        good | {"currency": "euro"},
        good | {"valid_from": "yesterday"},
        good | {"valid_from": "2025-01-02", "currency": "USD"},
    ):
        answer = await api.operator.put(path, json=bad, headers={"If-Match": '"1"'})
        assert answer.status_code in (400, 422), (bad, answer.text)
    assert (await api.operator.get(path)).json()["data"][0]["prices"]["call"] == 1
    assert (await api.operator.get(path.replace(project.id, project.id[:-4] + "aaaa"))).status_code == 404
    assert (await project.client.get(path)).status_code == 403


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"from": "2025-02-01", "to": "2025-01-01"}, "/to"),
        ({"from": "2025-01-01", "to": "2025-01-01"}, "/to"),
        ({"from": "2020-01-01", "to": "2025-01-01"}, "/from"),
        ({"from": "0001-01-01"}, "/from"),
        ({"to": "0001-01-01"}, "/to"),
        ({"from": "1.1.2025"}, "/from"),
        ({"from": "2025-W01-1"}, "/from"),
        ({"from": "2025-01-01T00:00:00Z"}, "/from"),
        ({"group_by": "moon"}, "/group_by"),
        ({"format": "xml"}, "/format"),
        ({"days": "3"}, "/days"),
    ],
)
async def test_what_cannot_be_asked_is_said(project: Project, asked: dict[str, str], pointer: str) -> None:
    answer = await project.client.get("/v1/usage", params=asked)
    assert answer.status_code in (400, 422), answer.text
    assert pointer in [e["pointer"] for e in answer.json()["errors"]]
    assert answer.json()["fix"]


async def test_it_is_csv_where_that_is_accepted_and_foreign_calls_are_not_there(
    api: Api, project: Project
) -> None:
    answer = await project.client.get("/v1/usage?group_by=region_pair", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text.startswith("from_region,to_region,calls,")
    both = await project.client.get("/v1/usage", headers={"Accept": "text/csv, application/json"})
    assert both.json()["data"] == []
    for call in ("nonsense", ids.encode(ids.CALL, new_id())):
        assert (await project.client.get(f"/v1/calls/{call}/usage")).status_code == 404
