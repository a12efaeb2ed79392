"""One member of an etcd cluster on loopback: the program of the system's package, with a password."""

from __future__ import annotations

import asyncio
import base64
import os
import platform
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

from app.local.folder import EngineFolder, writable
from app.local.process import Account, EngineError, check_port, last_lines, start, stop

READY_WITHIN_S = 20.0
HEARTBEAT_MS, ELECTION_MS = 200, 2_000
"""Three members share a machine with everything else: an election costs more than a late heartbeat."""


@dataclass(slots=True)
class Etcd:
    """`peers`: name → peer port of every member, this one too."""

    folder: Path
    name: str
    client_port: int
    peers: dict[str, int]
    _account: Account = field(default_factory=Account)
    _process: subprocess.Popen[bytes] | None = None
    _held: EngineFolder | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.client_port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        """False once it has ended by itself, and where it could not be started."""
        return self._process is not None and self._process.poll() is None

    async def __aenter__(self) -> Etcd:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Does not wait for the others: `until_ready` does. Raises `EngineError`."""
        program = find_etcd()
        held = EngineFolder(self.folder, self._account)
        await held.claim()
        self._held = held
        try:
            with writable(self.folder):
                if not held.data.exists():
                    held.make_data(held.data)
            for port in (self.client_port, self.peers[self.name]):
                check_port(
                    port,
                    "start with other ports and a new VOXPLANE_DATA: the members know each other by these",
                )
            environment = {"PATH": os.environ.get("PATH", ""), "ETCD_UNSUPPORTED_ARCH": _unsupported()}
            self._process = start(
                self._account,
                self._command(program, held.data),
                log=self._log,
                cwd=self.folder,
                env=environment,
            )
            held.note(self._process.pid)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._process is not None:
            # what it has acknowledged is on disk; asked to leave it would look for a successor first, for seconds
            await stop(self._process, signal.SIGKILL, signal.SIGKILL)
            self._process = None
        if self._held is not None:
            self._held.release()
            self._held = None

    async def until_ready(self) -> None:
        """The cluster has a leader, and this member knows it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        async with httpx.AsyncClient(base_url=self.url, timeout=2, trust_env=False) as client:
            while loop.time() < deadline:
                if self.process.poll() is not None:
                    raise EngineError(
                        "died", f"etcd did not start: {last_lines(self._log)}.", f"See {self._log}."
                    )
                try:
                    if (await client.get("/health")).json().get("health") == "true":
                        return
                except (httpx.HTTPError, ValueError):
                    pass
                await asyncio.sleep(0.02)
        raise EngineError("slow", f"etcd was not ready within {READY_WITHIN_S:g} s.", f"See {self._log}.")

    @property
    def _log(self) -> Path:
        return self.folder / "etcd.log"

    def _command(self, program: str, data: Path) -> list[str]:
        peer = f"http://127.0.0.1:{self.peers[self.name]}"
        given = {
            "name": self.name,
            "data-dir": str(data / "etcd"),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(
                f"{name}=http://127.0.0.1:{port}" for name, port in self.peers.items()
            ),
            "initial-cluster-state": "new",
            "heartbeat-interval": str(HEARTBEAT_MS),
            "election-timeout": str(ELECTION_MS),
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": "10m",
            "logger": "zap",
            "log-level": "warn",
            "log-outputs": "stderr",
        }
        return [program, *(f"--{name}={value}" for name, value in given.items())]


def find_etcd() -> str:
    """The program; raises `EngineError` with what to install."""
    # a user's PATH may lack the folders of the system's services
    found = shutil.which("etcd", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin:/usr/local/bin")
    if found is None:
        raise EngineError(
            "no_etcd",
            "A cluster needs etcd, and none is on the PATH.",
            "On Debian or Ubuntu: apt-get install etcd-server (nothing has to be enabled; a server of its own is started).",
        )
    return found


async def protect(url: str, password: str) -> None:
    """Lets only user `root` with `password` in. Done once, and seen to be done afterwards; raises `EngineError`."""
    steps: tuple[tuple[str, dict[str, str]], ...] = (
        ("user/add", {"name": "root", "password": password}),
        ("role/add", {"name": "root"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("enable", {}),
    )
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        if await _lets_in(client, password):
            return
        for step, body in steps:
            answer = await client.post(f"/v3/auth/{step}", json=body)
            if answer.status_code >= 400 and "already" not in answer.text:
                raise EngineError(
                    "etcd_auth",
                    f"etcd refused {step}: {answer.text[:200]}",
                    "Remove its data and start again.",
                )
        if not await _lets_in(client, password):
            raise EngineError(
                "other_password",
                "The password of etcd is not the one beside its data.",
                "Put the old file back.",
            )


async def _lets_in(client: httpx.AsyncClient, password: str) -> bool:
    """With a password where one is asked for, and never without."""
    entered = await client.post("/v3/auth/authenticate", json={"name": "root", "password": password})
    if entered.status_code >= 400:
        return False
    key = base64.b64encode(b"/voxplane").decode()
    return (await client.post("/v3/kv/range", json={"key": key})).status_code >= 400


def _unsupported() -> str:
    """etcd 3.4 asks to be told that one means it, on these."""
    return {"aarch64": "arm64"}.get(platform.machine(), "")
