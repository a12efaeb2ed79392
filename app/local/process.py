"""Child processes that never outlive us, started as the right user.

Decides the user (PostgreSQL refuses root), where the binaries are run from, and how a child ends: asked, then made to. The
children get SIGINT when their parent dies, however it dies.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_DEADLINE_S = 10.0


class EngineError(Exception):
    """An embedded engine that cannot be had. `fix` says what to do; `str` is both, ready to be printed."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(f"{detail} {fix}")
        self.code = code
        self.detail = detail
        self.fix = fix


class Account:
    """The user that engines run as: ourselves, or `nobody` where we are root."""

    def __init__(self, *, demote: bool = True) -> None:
        self.demoted = demote and os.geteuid() == 0
        entry = pwd.getpwnam("nobody") if self.demoted else pwd.getpwuid(os.geteuid())
        self.uid, self.gid = entry.pw_uid, entry.pw_gid

    def own(self, path: Path) -> None:
        """Gives a file or folder to the account."""
        if self.demoted:
            os.chown(path, self.uid, self.gid)

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        self.own(path)

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
    """Runs in the child, after the change of user, which would clear the setting."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)

    def set_signal() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return set_signal


def start(
    account: Account, command: list[str], *, log: Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a child whose output goes to `log`."""
    with log.open("ab") as out:
        account.own(log)
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, env=env, start_new_session=True,
            **account.popen_options(),
        )  # fmt: skip


def run(account: Account, command: list[str], *, cwd: Path, code: str, doing: str) -> None:
    """Runs to the end; raises `EngineError` with the last lines of what it said."""
    done = subprocess.run(  # type: ignore[call-overload]
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=cwd,
        check=False,
        timeout=120,
        **account.popen_options(),
    )
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()[-5:]
        raise EngineError(code, f"{doing} failed: {' / '.join(lines)}", "Mend what it names and start again.")


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def reachable_binaries(account: Account, package: Path, sub: str, cache: Path) -> Path:
    """`package/sub`, or a copy of it where the account may not read the environment (root's, below a closed home).

    The wheel's libraries stand beside the package and are found by a relative path, so both are copied, side by side.
    """
    wanted = package / sub
    if not account.demoted or all(p.stat().st_mode & 0o005 == 0o005 for p in [wanted, *wanted.parents]):
        return wanted
    copied = cache / package.name
    stamp = cache / f"{package.name}.from"
    source = f"{package} {package.stat().st_mtime_ns}"
    if cache.exists() and cache.stat().st_uid != 0:
        raise EngineError("foreign_cache", f"{cache} belongs to another user.", "Remove it, and start again.")
    if not stamp.exists() or stamp.read_text() != source:
        cache.mkdir(parents=True, exist_ok=True)
        cache.chmod(0o755)
        for folder in (package, package.with_name(package.name + ".libs")):
            if folder.exists():
                shutil.rmtree(cache / folder.name, ignore_errors=True)
                shutil.copytree(folder, cache / folder.name, symlinks=True)
        stamp.write_text(source)
    return copied / sub
