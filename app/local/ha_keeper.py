"""The parent of one Patroni and of the PostgreSQL that it starts: neither outlives it, whichever of them dies first.

Patroni lets go of its server on purpose (a server goes on when Patroni is restarted), so that nobody would stop it if both
Patroni and we were killed. The keeper adopts what is let go. It starts Patroni again when it is told to (SIGHUP), and on
SIGINT or SIGTERM it ends first Patroni, which stops its server, then what is left. It is run from its text, by an account
that may not be able to read this file: it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LOOK_EVERY_S = 0.02
PATRONI_STOPS_WITHIN_S = 12.0
SERVER_STOPS_WITHIN_S = 5.0


class Keeper:
    def __init__(self, pid_file: str, server_pid_file: str, command: list[str]) -> None:
        self._pid_file, self._server_pid_file, self._command = pid_file, server_pid_file, command
        self._patroni: subprocess.Popen[bytes] | None = None
        self._leave = False
        self._again = False

    def run(self) -> None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._told_to_leave)
        signal.signal(signal.SIGHUP, self._told_to_start)
        self._start()
        while not self._leave:
            self._reap()
            if self._again:
                self._again = False
                if self._patroni is None:
                    self._start()
            time.sleep(LOOK_EVERY_S)
        if self._patroni is not None:
            self._patroni.terminate()
            self._until(lambda: self._patroni is None, PATRONI_STOPS_WITHIN_S)
        if self._patroni is not None:
            self._patroni.kill()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            server = self._server()
            if server:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server, number)
                self._until(lambda: not self._server(), SERVER_STOPS_WITHIN_S)

    def _start(self) -> None:
        self._patroni = subprocess.Popen(self._command, preexec_fn=_die_with_parent)
        self._note(self._patroni.pid)

    def _note(self, pid: int) -> None:
        made = self._pid_file + ".new"
        with open(made, "w") as out:
            out.write(str(pid))
        os.replace(made, self._pid_file)

    def _reap(self) -> None:
        """Everything that has ended is our child, directly or by adoption."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if not pid:
                return
            if self._patroni is not None and pid == self._patroni.pid:
                self._patroni = None
                self._note(0)

    def _server(self) -> int:
        """The pid of a server that is ours and runs."""
        try:
            with open(self._server_pid_file) as file:
                pid = int(file.readline())
            with open(f"/proc/{pid}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return 0
        return pid if parent == os.getpid() else 0

    def _until(self, true: object, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            self._reap()
            if true():  # type: ignore[operator]
                return
            time.sleep(LOOK_EVERY_S)

    def _told_to_leave(self, _: int, __: FrameType | None) -> None:
        self._leave = True

    def _told_to_start(self, _: int, __: FrameType | None) -> None:
        self._again = True


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    """Patroni takes SIGINT as it takes Ctrl-C: it stops its server and leaves."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGINT)


if __name__ == "__main__":
    Keeper(sys.argv[1], sys.argv[2], sys.argv[3:]).run()
