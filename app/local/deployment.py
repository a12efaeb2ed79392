"""A whole deployment of this machine's own: engines, instances, regions with their edges. `up`, the demo and tests start it.

Decides the order, the ports and the environment of each process; every part runs in a process of its own and can be killed
by itself. What it prints is the business of its users.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import httpx

from app.local.cells import LocalCells
from app.local.certificates import Plain, local_tls
from app.local.folder import kept_secret, make_folder, writable
from app.local.ha import Cluster
from app.local.mending import Part, engine_part, start_again
from app.local.orphans import until_orphans_end
from app.local.places import PLACES, Place
from app.local.ports import Ports
from app.local.postgres import Postgres
from app.local.process import Account, EngineError, last_lines, start, stop
from app.local.valkey import Valkey
from app.local.wan import Link
from app.migrate import migrate
from app.preflight import check_database

__all__ = ["PLACES", "TAKES_CALLS", "Deployment", "Place", "Reached", "RegionUp"]

READY_WITHIN_S = 30.0
TAKES_CALLS = ("healthy", "probation")


class Reached(Protocol):
    """Listens on a port of this machine, and leads to what lies behind it."""

    port: int


@dataclass(slots=True)
class RegionUp:
    place: Place
    valkey: Valkey | None
    edge: subprocess.Popen[bytes]
    media_port: int
    link: Reached | None = None
    scheme: str = "ws"

    @property
    def url(self) -> str:
        """Where callers reach the edge."""
        return f"{self.scheme}://127.0.0.1:{self.link.port if self.link else self.media_port}"


@dataclass(slots=True)
class Deployment:
    """`ha`: three PostgreSQL servers, any of which may die, and not one. `cells`: more than one, with a server each. `delays`: put a
    link with the place's round trip between callers and each edge. `ports_from` 0: any free ports. `drain_s`: so long an edge that
    is told to stop lets its calls move. `talk_page`: edges serve the page to talk to one's own bot. `webrtc`: edges take callers over
    WebRTC. `tls`: every listener has it. `say` is told, in a few words, what is being done.
    """

    folder: Path
    places: tuple[Place, ...] = PLACES[:3]
    instances: int = 2
    ports_from: int = 0
    delays: bool = False
    fsync: bool = True
    ha: bool = False
    cells: int = 1
    database_url: str = ""
    redis_urls: dict[str, str] = field(default_factory=dict)
    capacity_calls: int = 50
    drain_s: int = 3
    talk_page: bool = False
    webrtc: bool = False
    tls: bool = False
    say: Callable[[str], None] = lambda _: None
    operator_key: str = ""
    api_urls: list[str] = field(default_factory=list)
    regions: dict[str, RegionUp] = field(default_factory=dict)
    api_ports: list[int] = field(default_factory=list)
    http_ports: dict[str, int] = field(default_factory=dict)
    apis: list[subprocess.Popen[bytes]] = field(default_factory=list)
    postgres: Postgres | None = None
    cluster: Cluster | None = None
    others: LocalCells | None = None
    secured: Plain = field(default_factory=Plain)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Deployment:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        self.folder = self.folder.absolute()
        make_folder(self.folder, Account())
        with writable(self.folder):
            self.operator_key = "vx_op_" + kept_secret(self.folder / "operator.key", Account(demote=False))
        if self.tls:
            self.secured = local_tls(self.folder / "tls")
        await until_orphans_end(self.folder)
        # told before anything is started
        ports = Ports(self.ports_from)
        self.api_ports = [ports.api(i) for i in range(self.instances)]
        media_ports = [ports.media(i) for i in range(len(self.places))]
        self.http_ports = {place.id: ports.http(i) for i, place in enumerate(self.places)}
        _, valkeys = await _together(self._start_database(), self._start_valkeys())
        await self.wire()
        self.say(f"{self.instances} API instances")
        self.api_urls = [f"{self.secured.http}://127.0.0.1:{port}" for port in self.api_ports]
        for port in self.api_ports:
            self.apis.append(self.start_api(port))
        for url, process in zip(self.api_urls, self.apis, strict=True):
            await self._until_ready(url, process)
        self.say(f"{len(self.places)} regions: " + ", ".join(p.id for p in self.places))
        async with self.operator() as client:
            for i, place in enumerate(self.places):
                await self._add_region(client, place)
                self.regions[place.id] = await self._start_region(
                    client, place, valkeys.get(place.id), media_ports[i]
                )
            await self.until_healthy(client)

    async def _start_database(self) -> None:
        if self.database_url:
            await check_database(self.database_url)
        else:
            self.database_url = await self._start_postgres()
        self.say("schema")
        await migrate(self.database_url)
        named = [place.jurisdiction for place in PLACES[: self.cells]] if self.cells > 1 else []
        self.others = LocalCells(self.folder, named, self.fsync)
        await self.others.start(self._stack, self.database_url)

    async def _start_valkeys(self) -> dict[str, Valkey]:
        if self.redis_urls:
            return {}
        self.say("Valkey, one per region")
        valkeys = {place.id: Valkey(self.folder / f"valkey-{place.id}") for place in self.places}
        await _together(*(self._stack.enter_async_context(valkey) for valkey in valkeys.values()))
        self.redis_urls = {region: v.url for region, v in valkeys.items()}
        return valkeys

    async def _start_postgres(self) -> str:
        """The DSN."""
        if self.ha:
            self.say("PostgreSQL: three servers under Patroni, with etcd")
            ports_from = Ports(self.ports_from).cluster
            self.cluster = await self._stack.enter_async_context(
                Cluster(self.folder / "ha", ports_from=ports_from, fsync=self.fsync)
            )
            return self.cluster.dsn
        self.say("PostgreSQL")
        self.postgres = await self._stack.enter_async_context(
            Postgres(self.folder / "postgres", fsync=self.fsync)
        )
        return self.postgres.dsn

    async def wire(self) -> None:
        """The engines are there, and nothing has reached them yet: whoever wants to stand between the parts does so now."""

    def operator(self) -> httpx.AsyncClient:
        """An HTTP client with the operator's key, to the first instance that runs."""
        return httpx.AsyncClient(
            base_url=(self._running_urls() or self.api_urls)[0],
            headers={"Authorization": f"Bearer {self.operator_key}"},
            timeout=10,
            trust_env=False,
            verify=self.secured.verify,
        )

    def _running_urls(self) -> list[str]:
        return [u for u, p in zip(self.api_urls, self.apis, strict=True) if p.poll() is None]

    async def create_project(self, name: str, mode: str = "test") -> tuple[str, str]:
        """(project id, an owner's key)."""
        async with self.operator() as client:
            project = _checked(await client.post("/admin/v1/projects", json={"name": name, "mode": mode}))
            key = _checked(
                await client.post(
                    f"/admin/v1/projects/{project['id']}/keys", json={"name": name, "role": "owner"}
                )
            )
        return project["id"], key["secret"]

    async def mend(self, told: Callable[[str], None] = lambda _: None) -> list[str]:
        """Starts again, on the same port and data, what has ended by itself; see `start_again`."""
        return await start_again(self._parts(), told)

    def _parts(self) -> list[Part]:
        parts = self.cluster.parts if self.cluster is not None else []
        if self.postgres is not None:
            parts.append(engine_part("PostgreSQL", self.postgres, needed=True))
        for n, server in self.others.servers.items() if self.others is not None else ():
            parts.append(engine_part(f"the PostgreSQL of cell {n}", server))
        for name, region in self.regions.items():
            if region.valkey is not None:
                parts.append(engine_part(f"the Valkey of {name}", region.valkey))
        for i, url in enumerate(self.api_urls):
            start = partial(self._start_api_again, i, url)
            parts.append(Part(f"the API instance {url}", self.apis[i].poll() is None, start))
        for name, region in self.regions.items():
            start = partial(self._start_edge_again, region)
            parts.append(Part(f"the edge of {name}", region.edge.poll() is None, start))
        return parts

    async def _start_api_again(self, i: int, url: str) -> None:
        self.apis[i] = self.start_api(int(url.rpartition(":")[2]))
        await self._until_ready(url, self.apis[i])

    async def _start_edge_again(self, region: RegionUp) -> None:
        async with self.operator() as client:
            region.edge = await self.start_edge(client, region.place, region.media_port, region.url)

    def start_api(self, port: int) -> subprocess.Popen[bytes]:
        env = self._environment() | self.api_environment(port)
        process = self._spawn([sys.executable, "-m", "app.cli.main", "serve"], f"api-{port}.log", env)
        self._stack.push_async_callback(stop, process, signal.SIGTERM, signal.SIGTERM)
        return process

    def api_environment(self, port: int) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URLS": ",".join(f"{region}={url}" for region, url in self.redis_urls.items()),
            "VOXPLANE_DATA": str(self.folder / "control"),
            "VOXPLANE_PORT": str(port),
            "VOXPLANE_OPERATOR_KEY": self.operator_key,
            "VOXPLANE_UPLINK_URLS": ",".join(u.replace("http", "ws", 1) for u in self.api_urls),
            # this machine stands for all of its places, and those of its cells
            "VOXPLANE_JURISDICTION": ",".join(
                sorted({place.jurisdiction for place in (*self.places, *PLACES[: self.cells])})
            ),
        } | (self.others.environment if self.others else {})

    async def start_edge(
        self, client: httpx.AsyncClient, place: Place, media_port: int, public_url: str
    ) -> subprocess.Popen[bytes]:
        """Starts, or starts again, the region's edge. One that was revoked does not come back: another takes its place."""
        known = _checked(await client.get("/admin/v1/edges"))["data"]
        last = max((e for e in known if e["region"] == place.id), key=lambda e: str(e["id"]), default=None)
        if last is not None and last["revoked_at"] is not None:
            shutil.rmtree(self.folder / f"edge-{place.id}", ignore_errors=True)
        enrolled = _checked(await client.post(f"/admin/v1/regions/{place.id}/enrol"))
        env = self._environment() | self.edge_environment(place, enrolled["token"], media_port, public_url)
        process = self._spawn([sys.executable, "-m", "regions.edge"], f"edge-{place.id}.log", env)
        self._stack.push_async_callback(stop, process, signal.SIGTERM, signal.SIGTERM)
        return process

    def edge_environment(self, place: Place, token: str, media_port: int, public_url: str) -> dict[str, str]:
        return {
            "VOXPLANE_REGION": place.id,
            "VOXPLANE_EDGE_NAME": "edge-1",
            "VOXPLANE_CONTROL_URLS": ",".join(self.api_urls),
            "VOXPLANE_EDGE_TOKEN": token,
            "VOXPLANE_EDGE_DATA": str(self.folder / f"edge-{place.id}"),
            "VOXPLANE_MEDIA_PORT": str(media_port),
            "VOXPLANE_PUBLIC_MEDIA_URL": public_url,
            "VOXPLANE_CAPACITY": str(self.capacity_calls),
            "VOXPLANE_DRAIN_S": str(self.drain_s),
            "VOXPLANE_TALK_PAGE": "1" if self.talk_page else "",
            "VOXPLANE_HTTP_PORT": str(self.http_ports.get(place.id, 0)),
            "VOXPLANE_WEBRTC": "1" if self.webrtc else "",
        }

    async def _start_region(
        self, client: httpx.AsyncClient, place: Place, valkey: Valkey | None, media_port: int
    ) -> RegionUp:
        link = await self.caller_link(place, media_port)
        public_port = link.port if link else media_port
        edge = await self.start_edge(
            client, place, media_port, f"{self.secured.ws}://127.0.0.1:{public_port}"
        )
        return RegionUp(place, valkey, edge, media_port, link, self.secured.ws)

    async def caller_link(self, place: Place, media_port: int) -> Reached | None:
        """What callers of the region's edge connect to, where that is not the edge itself."""
        if not self.delays:
            return None
        return await self._stack.enter_async_context(Link("127.0.0.1", media_port, place.rtt_ms / 2))

    async def _add_region(self, client: httpx.AsyncClient, place: Place) -> None:
        body = {
            "id": place.id,
            "jurisdiction": place.jurisdiction,
            "name": place.name,
            "latitude": place.latitude,
            "longitude": place.longitude,
        }
        response = await client.post("/admin/v1/regions", json=body)
        if response.status_code != 409:
            _checked(response)

    async def _until_ready(self, url: str, process: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        log = self.folder / f"api-{url.rpartition(':')[2]}.log"
        async with httpx.AsyncClient(timeout=2, trust_env=False, verify=self.secured.verify) as client:
            while loop.time() < deadline:
                self._check_runs(process, "An API instance", log)
                try:
                    if (await client.get(url + "/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise EngineError("slow", f"{url} was not ready within {READY_WITHIN_S:g} s.", f"See {log}.")

    async def until_healthy(self, client: httpx.AsyncClient) -> None:
        """Every region takes calls, as every instance that runs sees it; raises `EngineError`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        wanted = {p.id for p in self.places}
        asked = self._running_urls() or list(self.api_urls)
        while loop.time() < deadline:
            found = _checked(await client.get(asked[-1] + "/admin/v1/regions"))["data"]
            if wanted <= {r["id"] for r in found if r["health"] in TAKES_CALLS}:
                asked.pop()
                if not asked:
                    return
                continue
            for name, region in self.regions.items():
                self._check_runs(region.edge, f"The edge of {name}", self.folder / f"edge-{name}.log")
            await asyncio.sleep(0.05)
        raise EngineError(
            "slow",
            f"The regions were not healthy within {READY_WITHIN_S:g} s.",
            f"See the logs in {self.folder}.",
        )

    def _check_runs(self, process: subprocess.Popen[bytes], what: str, log: Path) -> None:
        if process.poll() is not None:
            raise EngineError("died", f"{what} did not start: {last_lines(log, 1)}", f"See {log}.")

    def _environment(self) -> dict[str, str]:
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "SSL_CERT_FILE",
                "VOXPLANE_DEFAULT_QUOTAS")  # fmt: skip
        return (
            {k: v for k, v in os.environ.items() if k in kept or k.startswith("OTEL_")}
            | {
                "VOXPLANE_ALLOW_LOCAL_TARGETS": "1",
                "VOXPLANE_ALLOW_PROJECT_TARGETS": "1",
                "PYTHONUNBUFFERED": "1",
            }
            | self.secured.environment
        )

    def _spawn(self, command: list[str], log: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
        return start(Account(demote=False), command, log=self.folder / log, cwd=self.folder, env=env)


async def _together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """What each returns. Where one fails, the others are given up, and are gone when this raises."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _checked(response: httpx.Response) -> dict[str, Any]:
    if response.status_code >= 400:
        raise EngineError(
            "refused", f"The control plane refused: {response.text[:300]}", "This should not happen here."
        )
    found: dict[str, Any] = response.json()
    return found
