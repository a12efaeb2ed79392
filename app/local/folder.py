"""The folder of one embedded engine: whose it is, who holds it, and what an earlier start left in it.

One start at a time holds the folder; an engine that outlived its parent is stopped before the next one is started. Where
we are root the folder stays ours and the engine owns only its data below it, so that it can plant nothing for us to follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO

from app.local.process import STOP_DEADLINE_S, Account, EngineError, is_alive, works_in

CACHE = Path("/var/cache/voxplane-engines")
PID = "engine.pid"


@dataclass(slots=True)
class EngineFolder:
    """Take it with `claim`, give it back with `release`. `password`: made by the first claim, kept for the next."""

    path: Path
    account: Account = field(default_factory=Account)
    password: str = ""
    _lock: IO[str] | None = None

    @property
    def data(self) -> Path:
        return self.path / "data"

    async def claim(self) -> None:
        """Raises `EngineError`: not writable, not ours, or held by another start."""
        with writable(self.path):
            self._make()
            self._hold()
            try:
                await self._end_orphan()
                self.password = kept_secret(self.path / "password", self.account)
            except BaseException:
                self.release()
                raise

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def note(self, pid: int) -> None:
        """Remembers the engine, so that the next start finds it if it outlives us."""
        with writable(self.path / PID):
            (self.path / PID).write_text(str(pid))

    def make_data(self, path: Path) -> None:
        """An empty folder (0700) of the engine's own."""
        path.mkdir(mode=0o700)
        self.account.own(path)

    def _make(self) -> None:
        make_folder(self.path.parent, self.account)
        self.path.mkdir(exist_ok=True)
        for folder in (self.path, self.data):
            owner = folder.stat().st_uid if folder.exists() else self.account.uid
            if owner not in {self.account.uid, os.geteuid()} or (
                folder == self.data and owner != self.account.uid
            ):
                raise EngineError(
                    "foreign_owner",
                    f"{folder} belongs to another user ({_name(owner)}).",
                    "Start as that user, or set VOXPLANE_DATA to another folder.",
                )
        if self.account.demoted:
            os.chown(self.path, os.geteuid(), os.getegid())
        self.path.chmod(0o711 if self.account.demoted else 0o700)

    def _hold(self) -> None:
        self._lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise EngineError(
                "in_use",
                f"{self.path} is in use: another `voxplane up` runs on it.",
                "Stop that one, or set VOXPLANE_DATA to another folder.",
            ) from None

    async def _end_orphan(self) -> None:
        """Engines hear of their parent's death and stop by themselves; one that has not finished is waited for."""
        pid = _number(self.path / PID)
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            deadline = loop.time() + STOP_DEADLINE_S
            if pid and is_alive(pid) and works_in(pid, self.path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            while pid and is_alive(pid) and works_in(pid, self.path) and loop.time() < deadline:
                await asyncio.sleep(0.01)


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns what the file system refuses below `path` into an `EngineError`."""
    try:
        yield
    except OSError as error:
        named = error.filename or path
        raise EngineError(
            "not_writable",
            f"{named} cannot be written: {error.strerror or error}.",
            "Mend that, or set VOXPLANE_DATA to a folder of your own on a disk with room.",
        ) from None


def make_folder(path: Path, account: Account) -> None:
    """Makes the folder and its parents, so that the engines' user may walk through, whatever our umask; raises `EngineError`."""
    with writable(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            if account.demoted:
                folder.chmod(0o711)
        if not path.is_dir():
            raise NotADirectoryError(0, "it is not a folder", str(path))
    account.check_reachable(path)


def temporary_folder(prefix: str) -> Path:
    """A new folder that the engines' account may enter, below TMPDIR where it may enter that."""
    account = Account()
    base = Path(os.environ.get("TMPDIR") or "/tmp").absolute()
    try:
        account.check_reachable(base)
    except EngineError:
        base = Path("/tmp")
    folder = base / f"{prefix}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    return folder


def keep_whole(file: Path, text: str) -> None:
    """Writes it (0600) so that it is there whole, or what was there before still is; raises `EngineError`."""
    with writable(file):
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=file.parent)
        try:
            with os.fdopen(descriptor, "w") as out:
                out.write(text)
            Path(name).replace(file)
        finally:
            Path(name).unlink(missing_ok=True)


def kept_secret(file: Path, account: Account) -> str:
    """The secret in `file`, made (0600) where there is none; it is there whole, or not at all."""
    if not file.exists():
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=file.parent)
        made = Path(name)
        try:
            with os.fdopen(descriptor, "w") as out:
                out.write(secrets.token_urlsafe(24))
            account.own(made)
            with contextlib.suppress(FileExistsError):
                os.link(made, file)
        finally:
            made.unlink()
    return file.read_text().strip()


def reachable_binaries(account: Account, package: Path, sub: str, cache: Path = CACHE) -> Path:
    """`package/sub`, or a copy of it where the account may not read the environment (root's, below a closed home).

    The wheel's libraries stand beside the package and are found by a relative path, so both are copied, side by side. A copy
    is named after what it was made from and appears whole: starts at the same time do not meet in a half of one.
    """
    wanted = package / sub
    if not account.demoted or all(p.stat().st_mode & 0o005 == 0o005 for p in [wanted, *wanted.parents]):
        return wanted

    def fill(made: Path) -> None:
        for folder in (package, package.with_name(package.name + ".libs")):
            if folder.exists():
                shutil.copytree(folder, made / folder.name, symlinks=True)

    return cached_copy(f"{package} {package.stat().st_mtime_ns}", fill, cache) / package.name / sub


def cached_copy(source: str, fill: Callable[[Path], None], cache: Path = CACHE) -> Path:
    """A folder that everybody may read, named after what it was made from; `fill` makes it where it is not there yet."""
    copied = cache / sha256(source.encode()).hexdigest()[:16]
    with writable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        if cache.stat().st_uid != os.geteuid():
            raise EngineError(
                "foreign_cache", f"{cache} belongs to another user.", "Remove it, and start again."
            )
        cache.chmod(0o755)
        if not copied.exists():
            _make_whole(copied, fill, cache)
    return copied


def _make_whole(copied: Path, fill: Callable[[Path], None], cache: Path) -> None:
    made = Path(tempfile.mkdtemp(prefix=".new-", dir=cache))
    try:
        fill(made)
        made.chmod(0o755)
        try:
            made.rename(copied)
        except OSError:
            if not copied.exists():  # else another start was quicker
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _number(file: Path) -> int:
    try:
        text = file.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isascii() and text.isdigit() else 0


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
