"""Child processes that never outlive us, started as the right user.

Decides the user (PostgreSQL refuses root), where the binaries are run from, and how a child ends: asked, then made to. The
children get SIGINT when their parent dies, however it dies.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_DEADLINE_S = 10.0
RUN_DEADLINE_S = 120.0
PORT_MAX = 65_535
FREE_PORTS_FROM, FREE_PORTS_COUNT = 10_240, 21_760
FREE_PORT_DRAWS = 50


class EngineError(Exception):
    """A part of a local deployment that cannot be had. `fix` says what to do; `str` is both, ready to be printed."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(f"{detail} {fix}")
        self.code = code
        self.detail = detail
        self.fix = fix


class Account:
    """The user that engines run as: ourselves, or `nobody` where we are root."""

    def __init__(self, *, demote: bool = True) -> None:
        self.demoted = demote and os.geteuid() == 0
        if self.demoted:
            entry = pwd.getpwnam("nobody")
            self.uid, self.gid = entry.pw_uid, entry.pw_gid
        else:
            self.uid, self.gid = os.geteuid(), os.getegid()

    def own(self, path: Path) -> None:
        """Gives a file or folder to the account."""
        if self.demoted:
            os.chown(path, self.uid, self.gid)

    def check_reachable(self, path: Path) -> None:
        """The account must be able to walk to its data; raises `EngineError`."""
        if not self.demoted:
            return
        for parent in [path, *path.parents]:
            if parent.exists() and not parent.stat().st_mode & 0o001 and parent.stat().st_uid != self.uid:
                raise EngineError(
                    "unreachable",
                    f"The engines run as nobody, who may not enter {parent}.",
                    "Set VOXPLANE_DATA to a folder below one that everybody may enter, such as /var/lib/voxplane.",
                )

    def popen_options(self) -> dict[str, object]:
        options: dict[str, object] = {"preexec_fn": _die_with_parent(os.getpid())}
        if self.demoted:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options


def _die_with_parent(parent: int) -> Callable[[], None]:
    """Runs in the child, after the change of user, which would clear the setting.

    A shell's background job ignores SIGINT, and so would its children: the default comes back first.
    """
    on_linux = sys.platform.startswith("linux")
    libc = ctypes.CDLL(None, use_errno=True) if on_linux else None

    def set_signal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return set_signal


def start(
    account: Account, command: list[str], *, log: Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a child whose output goes to `log`. Raises `EngineError` where it cannot even begin."""
    try:
        with log.open("ab") as out:
            return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, env=env, start_new_session=True,
                **account.popen_options(),
            )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(
            "not_started", f"{command[0]} cannot be started: {error}.", "Mend what it names and start again."
        ) from None


async def run(account: Account, command: list[str], *, log: Path, cwd: Path, code: str, doing: str) -> None:
    """Runs to the end; raises `EngineError` with the last lines of what it said. Cancelled, it takes the child with it."""
    log.unlink(missing_ok=True)
    process = start(account, command, log=log, cwd=cwd)
    try:
        async with asyncio.timeout(RUN_DEADLINE_S):
            while process.poll() is None:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise EngineError(code, f"{doing} took longer than {RUN_DEADLINE_S:g} s.", f"See {log}.") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise EngineError(code, f"{doing} failed: {last_lines(log)}.", "Mend what it names and start again.")


async def stop(process: subprocess.Popen[bytes], first: signal.Signals, then: signal.Signals) -> None:
    """`first`, and after a while `then`, and after another SIGKILL. Returns once the child is gone."""
    loop = asyncio.get_running_loop()
    for number in (first, then, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            deadline = loop.time() + STOP_DEADLINE_S
            while process.poll() is None and loop.time() < deadline:
                await asyncio.sleep(0.01)
    process.wait()


def last_lines(log: Path, count: int = 3) -> str:
    """The end of a log, in one line."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " / ".join(line.strip() for line in lines[-count:])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def works_in(pid: int, folder: Path) -> bool:
    """Does that process live in `folder`? A number alone may have been given to another process since."""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder.resolve())
    except OSError:
        return False


def free_port() -> int:
    """Where one can be had, below the ports that the system gives to outgoing connections (Linux: from 32768): a server that
    has died is then still alone with its port when it is started again."""
    for _ in range(FREE_PORT_DRAWS):
        drawn = FREE_PORTS_FROM + secrets.randbelow(FREE_PORTS_COUNT)
        if port_is_free(drawn):
            return drawn
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    if not 0 < port <= PORT_MAX:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def check_port(port: int, other: str) -> None:
    """Raises `EngineError` for a port that is taken. `other` says how to choose another one."""
    if not port_is_free(port):
        raise EngineError(
            "port_taken",
            f"Port {port} of 127.0.0.1 is taken.",
            f"Stop what listens there (`ss -ltnp sport = :{port}` names it), or {other}.",
        )
