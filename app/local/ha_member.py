"""One PostgreSQL server of a cluster, under a Patroni of its own, under a keeper that outlives neither of us.

Decides what is started and what counts as running. Who leads is decided by Patroni and etcd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.local import ha_keeper
from app.local.folder import EngineFolder, writable
from app.local.ha_config import Member, Secrets, patroni_config
from app.local.ha_python import Interpreter
from app.local.postgres import first_number
from app.local.process import (
    STOP_DEADLINE_S,
    Account,
    EngineError,
    check_port,
    is_alive,
    last_lines,
    start,
    stop,
    works_in,
)

KEEPER_STOPS_WITHIN_S = 25.0
PATRONI_PID = "patroni.pid"


@dataclass(slots=True)
class HaMember:
    """`folder` is ours; `folder/data` belongs to the engines' account."""

    folder: Path
    name: str
    port: int
    rest_port: int
    etcd_ports: list[int]
    secrets: Secrets
    interpreter: Interpreter
    binaries: Path
    parameters: dict[str, Any] = field(default_factory=dict)
    _account: Account = field(default_factory=Account)
    _process: subprocess.Popen[bytes] | None = None
    _held: EngineFolder | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def patroni_pid(self) -> int:
        """0: it does not run."""
        return first_number(self._home / PATRONI_PID)

    @property
    def postgres_pid(self) -> int:
        """0: none runs."""
        pid = first_number(self._home / "pg" / "postmaster.pid")
        return pid if pid and is_alive(pid) and works_in(pid, self._home / "pg") else 0

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None and self.patroni_pid != 0

    @property
    def log(self) -> Path:
        return self.folder / "member.log"

    @property
    def _home(self) -> Path:
        return self.folder / "data"

    async def start(self) -> None:
        """Does not wait until the server is of use. Raises `EngineError`; what was begun is undone then."""
        self.folder = self.folder.absolute()
        held = EngineFolder(self.folder, self._account)
        await held.claim()
        self._held = held
        try:
            with writable(self.folder):
                if not held.data.exists():
                    held.make_data(held.data)
            await self._end_leftovers()
            (self._home / PATRONI_PID).unlink(missing_ok=True)
            for port in (self.port, self.rest_port):
                check_port(
                    port,
                    "start with other ports and a new VOXPLANE_DATA: the members know each other by these",
                )
            self._process = start(
                self._account, self._command(held), log=self.log, cwd=self.folder, env=self._environment()
            )
            held.note(self._process.pid)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Patroni stops its server and gives up the lead, where it has it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEPER_STOPS_WITHIN_S):
                    while self._process.poll() is None:
                        await asyncio.sleep(0.02)
            await stop(self._process, signal.SIGKILL, signal.SIGKILL)
            self._process = None
            await self._end_leftovers()
        if self._held is not None:
            self._held.release()
            self._held = None

    async def revive(self) -> None:
        """Starts again what has ended of it; Patroni takes up a server that still runs."""
        if self._process is not None and self._process.poll() is None:
            if not self.patroni_pid:
                self._process.send_signal(signal.SIGHUP)
                await self._until(lambda: self.patroni_pid != 0)
        else:
            await self.stop()
            await self.start()

    def check_runs(self) -> None:
        """Raises `EngineError` where the keeper or Patroni has ended. Before Patroni has begun there is nothing to say."""
        begun = (self._home / PATRONI_PID).exists()
        if self._process is not None and (
            self._process.poll() is not None or (begun and not self.patroni_pid)
        ):
            raise EngineError(
                "died", f"{self.name} did not start: {last_lines(self.log)}.", f"See {self.log}."
            )

    def _command(self, held: EngineFolder) -> list[str]:
        member = Member(name=self.name, home=held.data, port=self.port, rest_port=self.rest_port)
        config = patroni_config(
            member,
            binaries=self.binaries,
            etcd_ports=self.etcd_ports,
            secrets=self.secrets,
            parameters=self.parameters,
        )
        file = self.folder / "patroni.yml"
        with writable(file):
            file.unlink(missing_ok=True)
            file.touch(mode=0o600)
            file.write_text(json.dumps(config, indent=1))
            self._account.own(file)
            logs = held.data / "log"
            if not logs.exists():
                held.make_data(logs)
        python = str(self.interpreter.executable)
        keeper = Path(ha_keeper.__file__).read_text()
        return [
            python, "-c", keeper, str(held.data / PATRONI_PID), str(held.data / "pg" / "postmaster.pid"),
            python, "-m", "patroni", str(file),
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        kept = {k: os.environ[k] for k in ("PYTHONPATH", "VIRTUAL_ENV") if k in os.environ}
        return (self.interpreter.environment or kept) | {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    async def _end_leftovers(self) -> None:
        """What an earlier start left, where its keeper was killed with everything else."""
        await self._end(self._patroni_alive, signal.SIGTERM)
        await self._end(lambda: self.postgres_pid, signal.SIGINT)

    async def _end(self, pid_of: Callable[[], int], first: signal.Signals) -> None:
        for number in (first, signal.SIGQUIT, signal.SIGKILL):
            if not (pid := pid_of()):
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            with contextlib.suppress(TimeoutError):
                await self._until(lambda: not pid_of())

    def _patroni_alive(self) -> int:
        pid = self.patroni_pid
        return pid if pid and is_alive(pid) and works_in(pid, self.folder) else 0

    async def _until(self, true: Callable[[], Any], within_s: float = STOP_DEADLINE_S) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                await asyncio.sleep(0.02)
