"""A PostgreSQL of three servers on this machine: a commit counts when two of them have it, and any one may die.

Decides the ports, the passwords, the order of the start and what a member that died needs. Three etcd members and not one:
one would be enough for a machine, but then what is rehearsed here (kill any one process and go on) would not be what runs
over three regions. They cost some 40 MB each.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from app.local.folder import keep_whole, kept_secret, make_folder, writable
from app.local.ha_config import REST_USER, USER, Secrets
from app.local.ha_etcd import Etcd, find_etcd, protect
from app.local.ha_member import HaMember
from app.local.ha_python import find_interpreter
from app.local.mending import Part, engine_part
from app.local.postgres import create_database, find_binaries
from app.local.process import Account, EngineError, check_port, free_port

COUNT = 3
READY_WITHIN_S = 120.0
LOOK_EVERY_S = 0.1


@dataclass(slots=True)
class Cluster:
    """`ports_from` 0: any free ones. Those of the first start are kept: the members know each other by them."""

    folder: Path
    ports_from: int = 0
    fsync: bool = True
    database: str = "voxplane"
    parameters: dict[str, Any] = field(default_factory=dict)
    members: dict[str, HaMember] = field(default_factory=dict)
    etcds: dict[str, Etcd] = field(default_factory=dict)
    _account: Account = field(default_factory=Account)
    _secrets: Secrets | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def dsn(self) -> str:
        return self.dsn_of(self.database)

    def dsn_of(self, database: str) -> str:
        assert self._secrets is not None
        hosts = ",".join(m.address for m in self.members.values())
        return f"postgresql://{USER}:{self._secrets.superuser}@{hosts}/{database}?target_session_attrs=read-write"

    async def __aenter__(self) -> Cluster:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when one leads and both standbys confirm. Raises `EngineError`; what was begun is undone then."""
        find_etcd()
        binaries = find_binaries(self._account)
        interpreter = await asyncio.to_thread(find_interpreter, self._account)
        self.folder = self.folder.absolute()
        make_folder(self.folder, self._account)
        with writable(self.folder):
            self._secrets = secrets = self._read_secrets()
            ports = self._read_ports()
        try:
            await self._start_etcd(ports)
            for i in range(COUNT):
                name = f"pg-{i + 1}"
                member = self.members[name] = HaMember(
                    self.folder / name,
                    name,
                    ports["postgres"][i],
                    ports["rest"][i],
                    ports["etcd"],
                    secrets,
                    interpreter,
                    binaries,
                    self.parameters | ({} if self.fsync else {"fsync": "off", "full_page_writes": "off"}),
                )
                await member.start()
            await self.until_whole()
            await create_database(self.dsn_of("postgres"), self.database)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """All members at once: whoever leads gives up the lead with everything on disk."""
        await asyncio.gather(*(member.stop() for member in self.members.values()))
        await asyncio.gather(*(etcd.stop() for etcd in self.etcds.values()))

    async def state(self) -> dict[str, dict[str, Any]]:
        """Member → what Patroni says of it (role, state, timeline, lag); empty where no Patroni answers."""
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            for member in self.members.values():
                if not member.runs:
                    continue
                try:
                    found = (await client.get(f"{member.rest_url}/cluster")).json()
                except (httpx.HTTPError, ValueError):
                    continue
                return {m["name"]: m for m in found.get("members", [])}
        return {}

    async def leader(self) -> str | None:
        """The name of the member that takes writes."""
        found = await self.state()
        return next((n for n, m in found.items() if m["role"] == "leader" and m["state"] == "running"), None)

    async def until_whole(self, within_s: float = READY_WITHIN_S) -> str:
        """The leader's name, once both standbys stream from it and their word counts."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while loop.time() < deadline:
            found = await self.state()
            roles = sorted((m["role"], m["state"]) for m in found.values())
            if roles == [("leader", "running")] + [("quorum_standby", "streaming")] * (COUNT - 1):
                return next(n for n, m in found.items() if m["role"] == "leader")
            for member in self.members.values():
                member.check_runs()
            await asyncio.sleep(LOOK_EVERY_S)
        raise EngineError(
            "slow",
            f"The PostgreSQL cluster was not whole within {within_s:g} s.",
            f"See the logs in {self.folder}.",
        )

    async def switch_over(self, to: str) -> None:
        """Hands the lead over; returns when `to` has it. Raises `EngineError` where Patroni refuses."""
        assert self._secrets is not None
        leader = await self.leader()
        member = self.members[leader or to]
        async with httpx.AsyncClient(
            timeout=30, trust_env=False, auth=(REST_USER, self._secrets.rest)
        ) as client:
            answer = await client.post(
                f"{member.rest_url}/switchover", json={"leader": leader, "candidate": to}
            )
        if answer.status_code >= 400:
            raise EngineError(
                "refused", f"Patroni refused the switch-over: {answer.text}.", "Look at the cluster's state."
            )

    @property
    def parts(self) -> list[Part]:
        """What may end by itself, and how each is started again."""
        return [engine_part(name, etcd) for name, etcd in self.etcds.items()] + [
            Part(f"the Patroni of {name}", member.runs, member.revive)
            for name, member in self.members.items()
        ]

    async def _start_etcd(self, ports: dict[str, list[int]]) -> None:
        assert self._secrets is not None
        peers = {f"etcd-{i + 1}": port for i, port in enumerate(ports["etcd_peer"])}
        for name, port in zip(peers, ports["etcd"], strict=True):
            self.etcds[name] = Etcd(self.folder / name, name, port, peers)
        for etcd in self.etcds.values():
            await etcd.start()
        for etcd in self.etcds.values():
            await etcd.until_ready()
        await protect(next(iter(self.etcds.values())).url, self._secrets.etcd)

    def _read_secrets(self) -> Secrets:
        ours = Account(demote=False)
        return Secrets(
            **{
                name: kept_secret(self.folder / f"{name}.password", ours)
                for name in ("superuser", "replication", "rewind", "rest", "etcd")
            }
        )

    def _read_ports(self) -> dict[str, list[int]]:
        file = self.folder / "ports.json"
        if file.exists():
            found: dict[str, list[int]] = json.loads(file.read_text())
            return found
        names = ("postgres", "rest", "etcd", "etcd_peer")
        ports: dict[str, list[int]] = {name: [] for name in names}
        for i in range(COUNT):
            for j, name in enumerate(names):
                port = self.ports_from + 10 * j + i if self.ports_from else free_port()
                if self.ports_from:
                    check_port(port, "choose others: `voxplane up --ha --port …`")
                ports[name].append(port)
        keep_whole(file, json.dumps(ports))
        return ports
