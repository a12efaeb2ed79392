"""Registration and the uplink, with a real socket playing the edge: who is let in, and what nonsense costs."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.fleet import uplink as server
from app.ids import new_id
from app.protocols import WebSocket
from regions.edge.identity import Identity
from regions.wire import ids
from regions.wire.measuring import Measured
from regions.wire.uplink import ALIVE_S, BATCHES_IN_FLIGHT_MAX
from tests.support.api import Api, Project
from tests.support.edges import until

REGION = "us-east"


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def region(api: Api) -> None:
    for name in (REGION, "eu-west"):
        made = await api.operator.post("/admin/v1/regions", json={"id": name, "jurisdiction": "us"})
        assert made.status_code == 201


def body(identity: Identity, **more: Any) -> dict[str, Any]:
    return {
        "name": "edge-1",
        "region": REGION,
        "incarnation": identity.incarnation,
        "listeners": {"media_url": "ws://127.0.0.1:9", "http_url": "http://127.0.0.1:9"},
        "capacity_calls": 5,
        "public_key": identity.public_key,
    } | more


async def register(api: Api, token: str, sent: dict[str, Any]) -> Any:
    client = await api.client()
    return await client.post("/edge/v1/register", json=sent, headers={"Authorization": f"Bearer {token}"})


async def enrol(api: Api, region: str = REGION) -> str:
    return str((await api.operator.post(f"/admin/v1/regions/{region}/enrol")).json()["token"])


@dataclass
class Edge:
    """The only one of its region, so that a call pinned there is its own."""

    api: Api
    identity: Identity
    name: str
    region: str

    @asynccontextmanager
    async def uplink(self, token: str | None = None) -> AsyncIterator[ClientConnection]:
        headers = {"Authorization": f"Bearer {token or self.identity.token(self.region)}"}
        url = self.api.url.replace("http", "ws") + "/edge/v1/uplink"
        async with connect(url, additional_headers=headers, ping_interval=None, max_size=4 << 20) as socket:
            yield socket

    def hello(self) -> str:
        load = {"calls": 0, "capacity_calls": 5}
        return json.dumps(
            {"type": "hello", "incarnation": self.identity.incarnation, "desired_version": 0, "load": load}
        )


@pytest.fixture
async def edge(api: Api, tmp_path: Path) -> Edge:
    identity, name, region = Identity(tmp_path / "edge"), f"e-{uuid4().hex[:8]}", f"r-{uuid4().hex[:8]}"
    made = await api.operator.post("/admin/v1/regions", json={"id": region, "jurisdiction": "us"})
    assert made.status_code == 201, made.text
    answer = await register(api, await enrol(api, region), body(identity, name=name, region=region))
    assert answer.status_code == 200, answer.text
    identity.registered(answer.json()["edge_id"])
    return Edge(api, identity, name, region)


async def heard(socket: ClientConnection) -> dict[str, Any]:
    """The next message but the signs of life, and whom to look at."""
    while True:
        message: dict[str, Any] = json.loads(await socket.recv())
        if message["type"] not in ("alive", "neighbours", "measure"):
            return message


async def placed(project: Project, edge: Edge) -> str:
    """A call that this edge owns."""
    await edge.api.control.fleet.refresh()
    made = await project.client.post(
        "/v1/calls",
        json={"agent": {"url": "ws://127.0.0.1:9/"}, "regions": {"pin": edge.region}},
        headers={"Idempotency-Key": str(uuid4())},
    )
    assert made.status_code == 201, made.text
    assert made.json()["edge"] == edge.identity.edge_id
    return str(made.json()["id"])


def event(n: int, **more: Any) -> dict[str, Any]:
    return {
        "n": n,
        "id": ids.encode(ids.EVENT, new_id()),
        "type": "speech.started",
        "at_ms": 1_700_000_000_000,
        "data": {},
    } | more


def events(call: str, *run: dict[str, Any], batch: int = 1, epoch: int = 1) -> str:
    return json.dumps(
        {"type": "events", "batch": batch, "calls": [{"call": call, "epoch": epoch, "events": list(run)}]}
    )


async def test_an_edge_says_hello_and_what_it_writes_is_acknowledged(project: Project, edge: Edge) -> None:
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        welcome = await heard(socket)
        assert welcome["type"] == "welcome"
        assert welcome["keys"]["fleet_keys"]
        assert welcome["keys"]["jwks"]["keys"][0]["crv"] == "Ed25519"
        call = await placed(project, edge)
        await socket.send(events(call, event(1), event(2), batch=7))
        ack = await heard(socket)
        assert (ack["type"], ack["batch"]) == ("ack", 7)
        assert (ack["results"][0]["status"], ack["results"][0]["durable_n"]) == ("durable", 2)


async def test_an_ended_call_is_told_to_its_edge(project: Project, edge: Edge) -> None:
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        await socket.recv()
        call = await placed(project, edge)
        await project.client.post(f"/v1/calls/{call}/end")
        desired = await heard(socket)
        assert desired["type"] == "desired"
        assert [(c["kind"], c["call"]) for c in desired["commands"]] == [("end", call)]
        await socket.send(json.dumps({"type": "done", "version": desired["commands"][-1]["version"]}))


async def test_an_edge_is_asked_for_a_call_and_its_word_is_kept(project: Project, edge: Edge) -> None:
    control = edge.api.control
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        await socket.recv()
        call = await placed(project, edge)
        await socket.send(events(call, event(1, type="call.answered")))
        assert (await heard(socket))["type"] == "ack"
        beat = {"type": "heartbeat", "at_ms": 1, "load": {"calls": 0, "capacity_calls": 5}}
        await socket.send(json.dumps(beat | {"lapsed": [[call, 1]]}))

        async def answer() -> list[str]:
            waiting = await control.overdue.waiting(50)
            return [e.answer for w in waiting if ids.encode(ids.CALL, w.call_id) == call for e in w.edges]

        while "due" not in await answer():
            await asyncio.sleep(0.005)
        for question in await control.overdue.questions(patience_s=0.0):
            await control.commands.deny(question.call_id, question.edge_id, question.epoch)
        desired = await heard(socket)
        assert [(c["kind"], c["call"], c["body"]) for c in desired["commands"]] == [
            ("deny", call, {"epoch": "1"})
        ]
        await socket.send(json.dumps({"type": "done", "version": desired["commands"][-1]["version"]}))
        while "denied" not in await answer():
            await asyncio.sleep(0.005)


async def test_an_edge_hears_something_all_the_time(edge: Edge) -> None:
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        assert (await heard(socket))["alive_s"] == ALIVE_S
        for _ in range(2):
            while (said := json.loads(await socket.recv()))["type"] in ("neighbours", "measure"):
                pass
            assert said == {"type": "alive"}


async def test_an_edge_that_is_not_heard_any_more_is_hung_up_on(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SILENCE_MAX_S", 0.05)
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        assert (await heard(socket))["type"] == "welcome"
        assert (await heard(socket))["code"] == "silent"
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_a_newer_uplink_voids_the_older(edge: Edge) -> None:
    async with edge.uplink() as old, edge.uplink() as new:
        for socket in (old, new):
            await socket.send(edge.hello())
            assert (await heard(socket))["type"] == "welcome"
        await old.send(
            json.dumps({"type": "heartbeat", "at_ms": 1, "load": {"calls": 0, "capacity_calls": 5}})
        )
        assert (await heard(old))["code"] == "superseded"
        await new.send(
            json.dumps({"type": "heartbeat", "at_ms": 1, "load": {"calls": 1, "capacity_calls": 5}})
        )


GOOD = "call_" + "0" * 26
EDGE = "edge_" + "0" * 26
NONSENSE: list[str | bytes] = [
    "",
    "{",
    "null",
    "[]",
    "42",
    '"hello"',
    "{}",
    '{"type":"nonsense"}',
    b"\x00\x01",
    '{"type":"hello"}',
    '{"type":"welcome"}',
    '{"type":"events","batch":"x","calls":[]}',
    '{"type":"heartbeat"}',
    "\ud83d".encode("utf-8", "surrogatepass").decode("latin-1"),
    events("nonsense", event(1)),
    events(GOOD),
    events(GOOD, event(2), event(1)),
    events(GOOD, event(1), event(3)),
    events(GOOD, event(0)),
    events(GOOD, event(-1)),
    events(GOOD, event(1 << 40)),
    events(GOOD, event(1), epoch=0),
    events(GOOD, event(1, id="evt_x")),
    events(GOOD, event(1, type="call.created")),
    events(GOOD, event(1, type="transcript.partial")),
    events(GOOD, event(1, at_ms=-5)),
    events(GOOD, event(1, type="call.ended"), event(2)),
    events(GOOD, event(1, origin=[1, 1])),
    events(GOOD, *[event(i + 1) for i in range(1_001)]),
    json.dumps(
        {"type": "events", "batch": 1, "calls": [{"call": GOOD, "epoch": 1, "events": [event(1)]}] * 2}
    ),
    json.dumps({"type": "volatile", "call": GOOD, "epoch": 1, "event": "turn.ended", "at_ms": 1, "data": {}}),
    "x" * 1_100_000,
    "[" * 200_000,
    '{"type":"heartbeat","at_ms":1,"load":{"calls":1000000000000,"capacity_calls":1}}',
    '{"type":"heartbeat","at_ms":1,"load":{"calls":-1,"capacity_calls":1}}',
    '{"type":"heartbeat","at_ms":1,"load":{"calls":0,"capacity_calls":1,"cpu":1e300}}',
    '{"type":"heartbeat","at_ms":1,"load":{"calls":0,"capacity_calls":1},"lapsed":[["call_x",1]]}',
    json.dumps(
        {"type": "heartbeat", "at_ms": 1, "load": {"calls": 0, "capacity_calls": 1}, "lapsed": [[GOOD, 0]]}
    ),
    '{"type":"heartbeat","at_ms":1,"load":{"calls":0,"capacity_calls":1},"not_taken":[["call_x",1]]}',
    '{"type":"observed"}',
    '{"type":"observed","lag_ms":NaN}',
    '{"type":"observed","lag_ms":-1}',
    '{"type":"observed","lag_ms":1e300}',
    *(
        json.dumps({"type": "observed", "lag_ms": 0, "probes": [probe]})
        for probe in (
            ["edge_x", "http", "ok", 1.0, 1, 1, True],
            [EDGE, "smtp", "ok", 1.0, 1, 1, True],
            [EDGE, "http", "fine", 1.0, 1, 1, True],
            [EDGE, "http", "ok", -1.0, 1, 1, True],
            [EDGE, "http", "ok", 1e12, 1, 1, True],
            [EDGE, "http", "ok", 1.0, -1, 1, True],
            [EDGE, "http", "ok", 1.0, 1, 0, True],
            [EDGE, "http", "ok", 1.0, 1, 10**12, True],
        )
    ),
    json.dumps({"type": "observed", "lag_ms": 0, "probes": [[EDGE, "http", "ok", 1.0, 1, 1, True]] * 65}),
    json.dumps({"type": "observed", "lag_ms": 0, "failures": [[GOOD, EDGE, "silent", 1]] * 201}),
    json.dumps({"type": "observed", "lag_ms": 0, "failures": [["call_x", EDGE, "silent", 1]]}),
    json.dumps({"type": "observed", "lag_ms": 0, "failures": [[GOOD, EDGE, "bored", 1]]}),
    json.dumps({"type": "observed", "lag_ms": 0, "failures": [[GOOD, EDGE, "silent", -1]]}),
    *(
        json.dumps({"type": "measured", kind: said})
        for kind, said in (
            ("callers", [["198.51.100.0/24", -1.0, 0.0, 1]]),
            ("callers", [["198.51.100.0/24", 1e12, 0.0, 1]]),
            ("callers", [["198.51.100.0/24", 1.0, -1.0, 1]]),
            ("callers", [["198.51.100.0/24", 1.0, 0.0, 0]]),
            ("callers", [["198.51.100.0/24", 1.0, 0.0, 10**30]]),
            ("callers", [["198.51.100.7", 1.0, 0.0, 1]]),
            ("callers", [["198.51.100.7/24", 1.0, 0.0, 1]]),
            ("callers", [["2001:0db8::/48", 1.0, 0.0, 1]]),
            ("callers", [["198.51.100.0/24", 1.0, 0.0, 1]] * 501),
            ("backends", [["", 1.0, 0.0, 0]]),
            ("backends", [["x" * 300, 1.0, 0.0, 0]]),
            ("backends", [["bot.example:443", 1.0, 0.0, -1]]),
            ("backends", [["bot.example:443", 1.0, 0.0, 0]] * 201),
            ("mesh", [["", 1.0, 0.0, 0.0]]),
            ("mesh", [["eu-west", 1.0, 0.0, 1.5]]),
            ("mesh", [["eu-west", 1.0, 0.0, -0.5]]),
            ("mesh", [["eu-west", 1.0, 0.0, 0.0]] * 65),
        )
    ),
    json.dumps({"type": "done", "version": 10**30}),
    json.dumps({"type": "done", "version": 2**63}),
    '{"type":"done","version":-1}',
]


@pytest.mark.parametrize("frame", NONSENSE, ids=range(len(NONSENSE)))
async def test_an_edge_that_talks_nonsense_is_cut_off_alone(api: Api, edge: Edge, frame: str | bytes) -> None:
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        await socket.recv()
        await socket.send(frame)
        goodbye = await heard(socket)
        assert (goodbye["type"], goodbye["code"]) == ("goodbye", "bad_frame")
        assert goodbye["detail"]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert (await (await api.client()).get("/readyz")).status_code == 200


async def test_an_edge_that_is_gone_before_its_answer_is_no_fault(project: Project, edge: Edge) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    held = await asyncpg.connect(edge.api.settings.database_url)
    try:
        async with edge.uplink() as socket:
            await socket.send(edge.hello())
            await socket.recv()
            call = await placed(project, edge)
            async with held.transaction():
                await held.execute("lock table vx.events in share mode")
                for n in range(
                    1, BATCHES_IN_FLIGHT_MAX + 2
                ):  # the last is not read yet, and so neither is the end
                    await socket.send(events(call, event(n), batch=n))
                socket.transport.abort()
                await until(lambda: any(s.disconnected for s in sockets()), "the end")
        await written(project, call)
        gc.collect()
        await asyncio.sleep(0)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
        await held.close()
    assert faults == []


def sockets() -> list[WebSocket]:
    """Those that this process serves."""
    return [found for found in gc.get_objects() if issubclass(type(found), WebSocket)]


async def written(project: Project, call: str) -> None:
    """Returns once the log has what the edge wrote."""
    async with asyncio.timeout(20):
        while len((await project.client.get(f"/v1/calls/{call}/events")).json()["data"]) < 2:
            await asyncio.sleep(0.01)


UNFIT: list[dict[str, Any]] = [
    {"type": "no.such"},
    {"data": [1]},
    {"data": "x"},
    {"data": {"x": "y" * 40_000}},
    {"data": {"x": "\u0000"}},
]


@pytest.mark.parametrize("unfit", UNFIT, ids=range(len(UNFIT)))
async def test_an_event_that_the_log_cannot_hold_is_given_up_and_holds_nothing_up(
    project: Project, edge: Edge, unfit: dict[str, Any]
) -> None:
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        await socket.recv()
        call, other = await placed(project, edge), await placed(project, edge)
        sent = events(call, event(1), event(2, **unfit), event(3))
        for _ in range(2):  # it was not heard that it is durable: the same again
            await socket.send(sent)
            ack = await heard(socket)
            assert (ack["results"][0]["status"], ack["results"][0]["durable_n"]) == ("durable", 3)
        await socket.send(events(other, event(1, type="call.ended", data=unfit.get("data", {}))))
        assert (await heard(socket))["results"][0]["status"] == "durable"
    written = (await project.client.get(f"/v1/calls/{call}/events")).json()["data"]
    assert [e["type"] for e in written[1:]] == ["speech.started", "events.lost", "speech.started"]
    assert written[2]["data"] == {"epoch": 1, "from_n": 2, "to_n": 2, "reason": "unfit"}
    assert (await project.client.get(f"/v1/calls/{other}")).json()["ended_at"]


@pytest.mark.parametrize(
    "first", ["{}", '{"type":"heartbeat","at_ms":1,"load":{"calls":0,"capacity_calls":1}}', b"x"]
)
async def test_the_first_frame_is_a_hello(edge: Edge, first: str | bytes) -> None:
    async with edge.uplink() as socket:
        await socket.send(first)
        assert (await heard(socket))["code"] == "bad_frame"


async def test_a_hello_of_another_incarnation_cuts_off_its_edge_alone(api: Api, edge: Edge) -> None:
    async with edge.uplink() as socket:
        other = json.loads(edge.hello()) | {"incarnation": str(uuid4())}
        await socket.send(json.dumps(other))
        goodbye = await heard(socket)
        assert (goodbye["type"], goodbye["code"]) == ("goodbye", "other_incarnation")
        assert goodbye["fix"]
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.reason == "other_incarnation"
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        assert (await heard(socket))["generation"] == 1, "the refused one was no uplink"


async def test_an_edge_that_has_stopped_is_known_for_it_and_never_suspected(api: Api, edge: Edge) -> None:
    def shown() -> Any:
        return api.control.fleet.now.edge(ids.decode(ids.EDGE, edge.identity.edge_id))

    load = {"calls": 0, "capacity_calls": 5}
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        await heard(socket)
        beat = {"type": "heartbeat", "at_ms": 1, "load": load, "draining": True, "stopped": True}
        await socket.send(json.dumps(beat))
        goodbye = await heard(socket)
        assert (goodbye["type"], goodbye["code"]) == ("goodbye", "stopped")
    await api.control.fleet.refresh()
    assert (shown().stopped, shown().health, shown().action) == (True, "down", "none")
    judged = [j.edge for j in api.control.fleet.look.judgements.values()]
    assert shown().id not in judged, "the detector has nothing to say of it"
    health = (await api.operator.get(f"/admin/v1/edges/{edge.identity.edge_id}/health")).json()
    assert (health["verdict"], health["case"]) == ("down", "stopped")
    found = (
        await api.operator.get("/admin/v1/events", params={"types": ["edge.stopped"], "limit": 200})
    ).json()
    assert edge.identity.edge_id in [e["edge"] for e in found["data"]]
    again = await register(
        api, edge.identity.token(edge.region), body(edge.identity, name=edge.name, region=edge.region)
    )
    assert again.status_code == 200
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        await heard(socket)
        await api.control.fleet.refresh()
        assert (shown().stopped, shown().health) == (False, "healthy")


async def refused(edge: Edge, token: str) -> None:
    with pytest.raises(InvalidStatus) as error:
        async with edge.uplink(token):
            pass
    answer = error.value.response
    assert answer.status_code == 401
    problem = json.loads(answer.body)
    assert problem["status"] == 401 and problem["code"] and problem["fix"], problem


async def test_a_token_opens_one_uplink_once(edge: Edge) -> None:
    token = edge.identity.token(edge.region)
    async with edge.uplink(token):
        pass
    await refused(edge, token)


def forged(edge: Edge) -> list[str]:
    now = int(time.time())
    claims = {
        "iss": edge.identity.edge_id, "sub": edge.region, "inc": edge.identity.incarnation, "aud": "voxplane.control",
        "iat": now, "exp": now + 30,
    }  # fmt: skip
    other, typ = Ed25519PrivateKey.generate(), {"typ": "vx-edge+jwt"}

    def made(
        key: Any = edge.identity.key, headers: dict[str, Any] = typ, alg: str = "EdDSA", **more: Any
    ) -> str:
        return jwt.encode(claims | {"jti": uuid4().hex} | more, key, algorithm=alg, headers=headers)

    good = made()
    head, payload, signature = good.split(".")
    return [
        made(other),
        made(headers={}),
        made(headers={"typ": "vx-enrol+jwt"}),
        made(headers={"typ": "JWT"}),
        made(edge.identity.public_key.ljust(64, "x"), alg="HS256"),
        jwt.encode(claims | {"jti": "x"}, None, algorithm="none", headers=typ),
        made(aud="someone"),
        made(aud="voxplane.edge"),
        made(exp=now - 60, iat=now - 90),
        made(iat=now + 600, exp=now + 630),
        made(exp=now + 3_600),
        made(sub="eu-west"),
        made(inc=str(uuid4())),
        made(iss=ids.encode(ids.EDGE, new_id())),
        made(iss="edge_x"),
        made(iss=""),
        made(exp="soon"),
        made(iat="now"),
        made(jti=7),
        made(sub=None),
        head + "." + payload + ".",
        head + "." + payload,
        head + ".e30." + signature,
        "e30." + payload + "." + signature,
        good[:-4] + "AAAA",
        good + "A",
        good[::-1],
        "x.y.z",
        "..",
        "x",
        "Bearer",
        "a" * 5_000,
        "eyJhbGciOiJFZERTQSJ9.e30.AA",
        made(headers=typ | {"crit": ["x"], "x": 1}),
    ]


async def test_no_forged_token_opens_an_uplink_or_registers(api: Api, edge: Edge) -> None:
    for token in forged(edge):
        await refused(edge, token)
        answer = await register(api, token, body(edge.identity, name=edge.name, region=edge.region))
        assert answer.status_code in (401, 403), token
        assert answer.json()["fix"]


async def test_an_enrolment_token_is_for_one_edge_of_its_region(api: Api, tmp_path: Path) -> None:
    token, identity = await enrol(api), Identity(tmp_path / "a")
    name = f"e-{uuid4().hex[:8]}"
    wrong = await register(api, await enrol(api, "eu-west"), body(identity, name=name))
    first = await register(api, token, body(identity, name=name))
    again = await register(api, token, body(identity, name=name))
    thief = await register(api, await enrol(api), body(Identity(tmp_path / "b"), name=name))
    assert (wrong.status_code, first.status_code) == (403, 200)
    assert (again.status_code, again.json()["code"]) == (401, "replayed")
    assert (thief.status_code, thief.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"incarnation": "x"}, "/incarnation"), ({"public_key": "AAAA"}, "/public_key"), ({"name": "Bad Name"}, "/name"),
        ({"capacity_calls": 0}, "/capacity_calls"), ({"capacity_calls": 10**9}, "/capacity_calls"),
        ({"listeners": {"media_url": "http://x", "http_url": "http://x"}}, "/listeners/media_url"),
        ({"listeners": {"media_url": "ws://x/path", "http_url": "http://x"}}, "/listeners/media_url"),
        ({"listeners": {"media_url": "ws://x", "http_url": "file:///etc"}}, "/listeners/http_url"), ({"extra": 1}, "/extra"),
        ({"version": "1.0\0"}, "/version"), ({"version": "1" * 65}, "/version"),
    ],
)  # fmt: skip
async def test_a_bad_registration_is_refused_with_a_pointer(
    api: Api, tmp_path: Path, change: dict[str, Any], pointer: str
) -> None:
    answer = await register(api, await enrol(api), body(Identity(tmp_path / "x")) | change)
    assert answer.status_code == 422
    assert pointer in [e["pointer"] for e in answer.json()["errors"]]


async def test_operators_see_which_release_an_edge_runs(api: Api, edge: Edge) -> None:
    sent = body(edge.identity, name=edge.name, region=edge.region)
    for version in ("0.2.0+g1a2b3c", ""):
        token = edge.identity.token(edge.region)
        assert (await register(api, token, sent | {"version": version})).status_code == 200
        shown = (await api.operator.get(f"/admin/v1/edges/{edge.identity.edge_id}")).json()
        assert shown["software"] == version


async def test_an_edge_is_asked_to_measure_and_what_it_measures_is_heard(
    api: Api, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, Measured]] = []
    learning = type(api.control.learning)
    monkeypatch.setattr(learning, "heard", lambda _, region, measured: said.append((region, measured)))
    async with edge.uplink() as socket:
        await socket.send(edge.hello())
        while (asked := json.loads(await socket.recv()))["type"] != "measure":
            continue
        assert asked.get("every_s", 30.0) == 30.0
        await socket.send('{"type":"measured","callers":[["198.51.100.0/24",12.5,0.5,9]],"later":1}')
        await until(lambda: said, "the report")
    [(region, measured)] = said
    [witnessed] = measured.callers
    assert region == edge.region
    assert (witnessed.network, witnessed.rtt_ms, witnessed.samples) == ("198.51.100.0/24", 12.5, 9)
