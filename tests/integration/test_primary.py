"""Several hosts in the URL: the one that takes writes is found, and every pool follows it without a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.local.postgres import Postgres
from app.local.process import free_port
from app.primary import Hosts, NoPrimary, split
from regions.edge.identity import Identity
from regions.wire import ids
from regions.wire.uplink import UPLINK_PATH, EdgeListeners, RegisterRequest
from tests.conftest import make_settings
from tests.support.api import serving
from tests.support.engines import Engines
from tests.support.feeds import feed_socket
from tests.support.fleet import add_region


@dataclass(slots=True)
class Door:
    """A host of its own that leads to `port`, until it is shut. `mute`: it lets in and says nothing."""

    port: int
    mute: bool = False
    _server: asyncio.Server | None = None
    _sockets: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def host(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)

    async def shut(self) -> None:
        """As a server that is killed: nobody listens, and every socket is gone."""
        assert self._server is not None
        self._server.close()
        for socket in list(self._sockets):
            socket.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sockets.add(writer)
        if self.mute:
            await reader.read()
            return
        inner, outer = await asyncio.open_connection("127.0.0.1", self.port)
        self._sockets.add(outer)
        await asyncio.gather(_copy(reader, outer), _copy(inner, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    except OSError:
        pass
    writer.close()


@asynccontextmanager
async def doors(url: str, count: int, *, mute: int = -1) -> AsyncIterator[tuple[str, list[Door]]]:
    """The URL with `count` hosts, all leading to the same server."""
    parts = urlsplit(url)
    made = [Door(parts.port or 0, mute=i == mute) for i in range(count)]
    try:
        for door in made:
            await door.open()
        user = parts.netloc.rpartition("@")[0]
        hosts = ",".join(d.host for d in made)
        yield parts._replace(netloc=f"{user}@{hosts}").geturl(), made
    finally:
        for door in made:
            await door.shut()


def test_a_url_is_split_by_host_and_keeps_the_rest() -> None:
    assert split("postgresql://u:p%2C@a:1,[::1]:2,c/d?sslmode=require") == [
        "postgresql://u:p%2C@a:1/d?sslmode=require",
        "postgresql://u:p%2C@[::1]:2/d?sslmode=require",
        "postgresql://u:p%2C@c/d?sslmode=require",
    ]


@pytest.mark.parametrize("first", ["dead", "mute"])
async def test_a_host_that_is_gone_or_silent_is_passed_over(database_url: str, first: str) -> None:
    async with doors(database_url, 3, mute=0 if first == "mute" else -1) as (url, made):
        if first == "dead":
            await made[0].shut()
        hosts = Hosts(url)
        for _ in range(3):
            connection = await hosts.connect()
            assert await connection.fetchval("select 1") == 1
            await connection.close()


async def test_without_a_primary_every_host_is_named_with_its_reason(database_url: str) -> None:
    superuser = await asyncpg.connect(database_url)
    name = await superuser.fetchval("select current_database()")
    await superuser.execute(f"alter database {name} set default_transaction_read_only = on")
    await superuser.close()
    dead = f"127.0.0.1:{free_port()}"
    async with doors(database_url, 1) as (url, made):
        alive = made[0].host
        with pytest.raises(NoPrimary) as raised:
            await Hosts(url.replace(alive, f"{dead},{alive}")).connect()
    assert f"{dead}: " in str(raised.value)
    assert f"{alive}: None of the hosts match" in str(raised.value)


async def test_a_host_that_has_not_heard_of_the_database_yet_is_passed_over(
    engines: Engines, database_url: str
) -> None:
    """As a standby that lags."""
    async with Postgres(engines.folder / f"other-{uuid4().hex[:8]}", fsync=False) as other:
        port, password = other.port, urlsplit(database_url).password or ""
        superuser = await asyncpg.connect(other.dsn)
        await superuser.execute(f"alter role voxplane password '{password}'")
        await superuser.close()
        parts = urlsplit(database_url)
        user = parts.netloc.rpartition("@")[0]
        both = parts._replace(netloc=f"{user}@127.0.0.1:{port},127.0.0.1:{parts.port}").geturl()
        connection = await Hosts(both).connect()
        assert await connection.fetchval("show port") == str(parts.port)
        await connection.close()


async def test_a_wrong_password_is_not_taken_for_a_host_that_is_away(database_url: str) -> None:
    parts = urlsplit(database_url)
    async with doors(database_url, 2) as (url, _):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await Hosts(url.replace(f":{parts.password}@", ":wrong@")).connect()


async def test_an_instance_follows_the_primary_and_answers_503_meanwhile(
    engines: Engines, redis_urls: dict[str, str], tmp_path: Path
) -> None:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}}
    async with (
        engines.database() as direct,
        doors(direct, 2) as (url, made),
        serving(make_settings(url, redis_urls, tmp_path)) as api,
    ):
        await add_region(api, "us-east")
        project = await api.project()

        async def create() -> int:
            key = {"Idempotency-Key": str(uuid4())}
            return (await project.client.post("/v1/calls", json=body, headers=key)).status_code

        async def status() -> list[int]:
            asked = [project.client.get(p) for p in ("/v1/calls", "/v1/keys", "/v1/events", "/readyz")]
            return [await create(), *(a.status_code for a in await asyncio.gather(*asked))]

        assert await status() == [201, 200, 200, 200, 200]
        await made[0].shut()
        async with asyncio.timeout(15):
            while (seen := await status()) != [201, 200, 200, 200, 200]:
                assert set(seen) <= {200, 201, 503}
                await asyncio.sleep(0.01)
        await made[1].shut()
        assert await create() == 503
        ready = await project.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reasons"] == ["database: no_primary"]


async def test_with_the_database_away_an_uplink_is_put_off_and_not_refused(
    database_url: str, redis_urls: dict[str, str], tmp_path: Path
) -> None:
    """A refusal would make the edge register again, which it must not have to."""
    identity = Identity(tmp_path / "edge")
    async with (
        doors(database_url, 1) as (url, [door]),
        serving(make_settings(url, redis_urls, tmp_path)) as api,
    ):
        await api.operator.post("/admin/v1/regions", json={"id": "us-east", "jurisdiction": "us"})
        token = (await api.operator.post("/admin/v1/regions/us-east/enrol")).json()["token"]
        body = RegisterRequest(
            name="e", region="us-east", incarnation=identity.incarnation, public_key=identity.public_key, capacity_calls=5,
            listeners=EdgeListeners(media_url="ws://127.0.0.1:9", http_url="http://127.0.0.1:9"),
        )  # fmt: skip
        edge_id, region = await api.control.registration.register(token, body)
        identity.registered(ids.encode(ids.EDGE, edge_id))
        await door.shut()
        with pytest.raises(InvalidStatus) as put_off:
            async with connect(
                api.url.replace("http", "ws") + UPLINK_PATH,
                additional_headers={"Authorization": f"Bearer {identity.token(region)}"},
            ):
                pass
        assert put_off.value.response.status_code == 503
        await door.open()


async def test_with_the_database_away_a_reader_is_put_off_and_not_refused(
    database_url: str, redis_urls: dict[str, str], tmp_path: Path
) -> None:
    """Nobody can say whether its key holds: told that it does not, it would never come back."""
    async with (
        doors(database_url, 1) as (url, [door]),
        serving(make_settings(url, redis_urls, tmp_path)) as api,
    ):
        project = await api.project()
        await door.shut()
        with pytest.raises(InvalidStatus) as put_off:
            async with feed_socket(api, project.key):
                raise AssertionError
        answer = put_off.value.response
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert json.loads(answer.body)["code"] == "unavailable"
        await door.open()
