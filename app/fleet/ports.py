"""What an uplink needs of the world around it, and nothing more. Each docstring is a contract."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from app.log.append import EdgeIdentity
from regions.wire.measuring import Measure, Measured
from regions.wire.observations import Neighbours, Observed
from regions.wire.uplink import Volatile


class Socket(Protocol):
    """The server's side of a WebSocket. `receive` gives text, bytes, or None once the other side has closed."""

    async def receive(self) -> str | bytes | None: ...
    async def send(self, text: str) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...


class LostContact(Protocol):
    """What an edge says of calls that may be over. Both raise what the driver raises."""

    async def lapsed(self, edge_id: UUID, calls: list[tuple[UUID, int]]) -> None:
        """The edge has let go of these (call, epoch), for their caller was not heard."""
        ...

    async def answered(self, edge_id: UUID, incarnation: UUID, answers: list[tuple[UUID, int, bool]]) -> None:
        """Call, the epoch up to which it was asked, whether it denies."""
        ...


class Listening(Protocol):
    """Where volatile events go. Neither blocks nor raises."""

    def heard(self, edge: EdgeIdentity, message: Volatile) -> None: ...


class Observing(Protocol):
    """Where reports go, and whom an edge is to look at. Neither blocks nor raises."""

    def heard(self, edge_id: UUID, observed: Observed) -> None: ...
    def neighbours(self, edge_id: UUID) -> Neighbours: ...


class Measuring(Protocol):
    """Where measured round trips go, and whom an edge is to measure. Neither blocks nor raises."""

    def heard(self, region: str, measured: Measured) -> None:
        """`region`: of the edge that has measured. The frame was checked for its bounds; what it claims was not."""
        ...

    def measure_for(self, edge_id: UUID) -> Measure | None:
        """None: nothing is asked of it, what was asked before stays."""
        ...
