"""Which ports the parts of a deployment of this machine's own listen on: one range, told before anything is started."""

from __future__ import annotations

from app.local.process import check_port, free_port

MEDIA_FROM = 10
"""The edges' ports begin so far above the instances'."""
HTTP_FROM = 20
CLUSTER_FROM = 40


class Ports:
    """`ports_from` 0: any free ports."""

    def __init__(self, ports_from: int) -> None:
        self._from = ports_from

    def api(self, i: int) -> int:
        return self._checked(i)

    def media(self, i: int) -> int:
        return self._checked(MEDIA_FROM + i)

    def http(self, i: int) -> int:
        """0: any that is free then. The same at every start, for a browser remembers by it who may use the microphone."""
        return self._checked(HTTP_FROM + i) if self._from else 0

    @property
    def cluster(self) -> int:
        """Where the servers' begin; 0: any."""
        return self._from + CLUSTER_FROM if self._from else 0

    def _checked(self, offset: int) -> int:
        """Raises `EngineError` where somebody else listens there."""
        if not self._from:
            return free_port()
        port = self._from + offset
        check_port(port, f"choose others: `voxplane up --port {self._from + 100}` (0: any that are free)")
        return port
