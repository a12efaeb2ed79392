"""What the holder of an uplink adds to commands before they go out, and takes from an edge that was told to stop.

A ticket is never stored: a command to move a call names the epochs, and its ticket is made when it is sent.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from regions.wire.uplink import Command


class Tickets(Protocol):
    async def for_moves(self, moves: list[tuple[UUID, int]]) -> dict[UUID, tuple[str, int]]:
        """Call → (ticket, within_ms) for those of these (call, first epoch) that are still to be moved. Raises what the
        driver raises."""
        ...


class Stopping(Protocol):
    """Both raise what the driver raises."""

    async def stopping(self, edge_id: UUID, incarnation: UUID, left_s: float) -> None: ...
    async def has_stopped(self, edge_id: UUID, incarnation: UUID) -> None: ...


class Orders:
    def __init__(self, tickets: Tickets, drains: Stopping) -> None:
        self._tickets = tickets
        self._drains = drains

    async def complete(
        self, commands: list[tuple[Command, UUID | None]]
    ) -> list[tuple[Command, UUID | None]]:
        """The same commands, ready to be sent: a move that is off has become a `stay`. Raises what the driver raises."""
        moves = [
            (call_id, int(command.body["epoch"]))
            for command, call_id in commands
            if command.kind == "move" and call_id is not None
        ]
        if not moves:
            return commands
        made = await self._tickets.for_moves(moves)
        return [
            (_complete(command, made.get(call_id)) if call_id is not None else command, call_id)
            for command, call_id in commands
        ]

    async def stopping(self, edge_id: UUID, incarnation: UUID, left_s: float) -> None:
        """Raises what the driver raises."""
        await self._drains.stopping(edge_id, incarnation, left_s)

    async def stopped(self, edge_id: UUID, incarnation: UUID) -> None:
        """Raises what the driver raises."""
        await self._drains.has_stopped(edge_id, incarnation)


def _complete(command: Command, made: tuple[str, int] | None) -> Command:
    if command.kind != "move":
        return command
    if made is None:
        return Command(version=command.version, kind="stay", body={"epoch": command.body["epoch"]})
    ticket, within_ms = made
    return Command(version=command.version, kind="move", body={"ticket": ticket, "within_ms": str(within_ms)})
