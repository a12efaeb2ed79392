"""What the holder of an uplink adds to commands before they go out, and takes from an edge that was told to stop.

A ticket is never stored: a command to move a call names the epochs, and its ticket is made when it is sent.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol
from uuid import UUID

from regions.wire.uplink import Command, Cut


class MoveOrder(NamedTuple):
    """`forced`: when `within_ms` is over it goes in the middle of a turn; without, it stays."""

    ticket: str
    within_ms: int
    forced: bool = True


class Tickets(Protocol):
    async def for_moves(self, moves: list[tuple[UUID, int]]) -> dict[UUID, MoveOrder]:
        """Call → the order, for those of these (call, first epoch) that are still to be moved. Raises what the
        driver raises."""
        ...

    async def not_taken(self, edge_id: UUID, moves: list[tuple[UUID, int]]) -> None:
        """The edge says of these (call, first epoch) that they have stayed. Raises what the driver raises."""
        ...

    async def for_standbys(self, renewals: list[tuple[UUID, int, int]]) -> dict[UUID, str]:
        """Call → ticket for those of these (call, first epoch, how many) that run. Raises what the driver raises."""
        ...


class Stopping(Protocol):
    """Both raise what the driver raises."""

    async def stopping(self, edge_id: UUID, incarnation: UUID, left_s: float) -> None: ...
    async def has_stopped(self, edge_id: UUID, incarnation: UUID) -> None: ...


class CutReports(Protocol):
    async def wanted(self, calls: list[UUID]) -> set[UUID]:
        """Those that are still to be cut: their drill runs and was not stopped. Raises what the driver raises."""
        ...

    async def told(self, edge_id: UUID, cut: list[Cut]) -> None:
        """What the edge says of calls that it was told to cut. Raises what the driver raises."""
        ...


class Orders:
    def __init__(self, tickets: Tickets, drains: Stopping, drills: CutReports | None = None) -> None:
        self._tickets = tickets
        self._drains = drains
        self._drills = drills

    async def complete(
        self, commands: list[tuple[Command, UUID | None]]
    ) -> list[tuple[Command, UUID | None]]:
        """The same commands, ready to be sent: a move that is off has become a `stay`; a ticket that nobody needs any more is
        empty, and so is a cut whose drill was stopped before the edge could be told. Raises what the driver raises."""
        moves = [
            (call_id, int(command.body["epoch"]))
            for command, call_id in commands
            if command.kind == "move" and call_id is not None
        ]
        renewals = [
            (call_id, int(command.body["epoch"]), int(command.body["grants"]))
            for command, call_id in commands
            if command.kind == "ticket" and call_id is not None
        ]
        made = await self._tickets.for_moves(moves) if moves else {}
        fresh = await self._tickets.for_standbys(renewals) if renewals else {}
        cuts = [call_id for command, call_id in commands if command.kind == "cut" and call_id is not None]
        wanted = await self._drills.wanted(cuts) if cuts and self._drills is not None else set()
        return [
            (
                _complete(command, made.get(call_id), fresh.get(call_id), cut=call_id in wanted)
                if call_id is not None
                else command,
                call_id,
            )
            for command, call_id in commands
        ]

    async def not_taken(self, edge_id: UUID, moves: list[tuple[UUID, int]]) -> None:
        """Raises what the driver raises."""
        await self._tickets.not_taken(edge_id, moves)

    async def stopping(self, edge_id: UUID, incarnation: UUID, left_s: float) -> None:
        """Raises what the driver raises."""
        await self._drains.stopping(edge_id, incarnation, left_s)

    async def stopped(self, edge_id: UUID, incarnation: UUID) -> None:
        """Raises what the driver raises."""
        await self._drains.has_stopped(edge_id, incarnation)

    async def cut(self, edge_id: UUID, cut: list[Cut]) -> None:
        """Raises what the driver raises; a report that is lost is asked for again."""
        if self._drills is not None:
            await self._drills.told(edge_id, cut)


def _complete(command: Command, made: MoveOrder | None, fresh: str | None, *, cut: bool) -> Command:
    if command.kind == "cut":
        return command if cut else Command(version=command.version, kind="cut", body={})
    if command.kind == "ticket":
        return Command(version=command.version, kind="ticket", body={"ticket": fresh} if fresh else {})
    if command.kind != "move":
        return command
    if made is None:
        return Command(version=command.version, kind="stay", body={"epoch": command.body["epoch"]})
    body = {"ticket": made.ticket, "within_ms": str(made.within_ms)}
    return Command(
        version=command.version, kind="move", body=body if made.forced else {**body, "forced": "false"}
    )
