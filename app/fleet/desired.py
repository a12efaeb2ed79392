"""Commands to edges as desired state: versioned rows, hinted, carried by whichever instance holds the uplink."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from app.fleet import hang_ups
from app.fleet.store import FleetStore
from app.hints import Hints
from regions.wire.events import EndReason


def topic(edge_id: UUID) -> str:
    return f"desired:{edge_id}"


class Commands:
    def __init__(self, store: FleetStore, hints: Hints) -> None:
        self._store = store
        self._hints = hints

    async def end_call(self, call_id: UUID, edges: Iterable[UUID], reason: EndReason) -> None:
        """Every edge that was granted an epoch drops the call and refuses its tickets from then on."""
        for edge_id in edges:
            await self._store.add_command(edge_id, "end", call_id, {"end_reason": reason.value})
            self._hints.wake(topic(edge_id))

    async def drain(self, edge_id: UUID, *, on: bool) -> None:
        """Who comes for the first time is sent to its standby; or is taken again, and no call is moved any more."""
        await self._store.add_command(edge_id, "drain" if on else "undrain", None, {})
        self._hints.wake(topic(edge_id))

    async def move(self, call_id: UUID, edge_id: UUID, epoch: int) -> None:
        """Says again that the call is to be moved, with what is left of its time."""
        await self._store.add_command(edge_id, "move", call_id, {"epoch": str(epoch)})
        self._hints.wake(topic(edge_id))

    async def hang_up(self, call_id: UUID, edge_id: UUID, epoch: int, socket: int) -> None:
        """The backend behind that socket of that owner's has ended the call. See `app.fleet.hang_ups`."""
        await self._store.add_command(edge_id, hang_ups.KIND, call_id, hang_ups.body(epoch, socket))
        self._hints.wake(topic(edge_id))

    async def deny(self, call_id: UUID, edge_id: UUID, epoch: int) -> None:
        """The edge is asked whether it holds the call; where it does not, it refuses the grants up to `epoch` from then on."""
        await self._store.add_command(edge_id, "deny", call_id, {"epoch": str(epoch)})
        self._hints.wake(topic(edge_id))
