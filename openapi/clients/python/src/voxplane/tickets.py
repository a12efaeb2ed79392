"""The tickets of one call: what they grant, and how a new one is asked for."""

from __future__ import annotations

from voxplane.client import AsyncClient
from voxplane.errors import ApiError, Unavailable
from voxplane.grants import Grant, read_grants

PAUSES_S = (0.3, 0.5, 1.0, 2.0)
"""After each time that no ticket was had; the last holds for all that follow. Each up to a half shorter, by chance."""


class Lost(Exception):
    """No ticket will ever be had: the call has ended, or the one at hand is worth nothing."""


class Tickets:
    """Raises `ValueError` for what is not a ticket. `newest` is the one to show: its grants are the highest."""

    def __init__(self, ticket: str, client: AsyncClient | None) -> None:
        self.call_id, grants = read_grants(ticket)
        self.first = grants[0]
        self.epochs = [g.epoch for g in grants]
        self._client = client
        self._grants = {g.epoch: (g, ticket) for g in grants}
        self._newest = ticket
        self._refused = 0

    @property
    def renewable(self) -> bool:
        """Whether there is somebody to ask for another."""
        return self._client is not None

    def grant(self, epoch: int) -> Grant:
        return self._grants[epoch][0]

    def has(self, epoch: int) -> bool:
        return epoch in self._grants

    def of(self, epoch: int) -> str:
        """The ticket that grants it."""
        return self._grants[epoch][1]

    def add(self, ticket: str) -> list[int]:
        """The epochs that are new with it; none where it is no ticket of this call."""
        try:
            call_id, grants = read_grants(ticket)
        except ValueError:
            return []
        fresh = [g for g in grants if g.epoch > max(self._grants)]
        if call_id != self.call_id or not fresh:
            return []
        self._newest, self._refused = ticket, 0
        self._grants |= {g.epoch: (g, ticket) for g in fresh}
        return [g.epoch for g in fresh]

    def pause_s(self, draw: float) -> float:
        """Until it is asked for again. `draw`: from 0 to 1."""
        pause_s = PAUSES_S[min(self._refused, len(PAUSES_S) - 1)]
        self._refused += 1
        return pause_s * (1 - draw / 2)

    async def renew(self) -> list[int]:
        """The epochs of a new ticket; none where nobody gives one now. Raises `Lost`."""
        if self._client is None:
            return []
        try:
            return self.add(str((await self._client.new_ticket(self.call_id, self._newest))["ticket"]))
        except ApiError as error:
            if error.status in (401, 404) or error.code == "call_ended":
                raise Lost from None
        except (Unavailable, KeyError, TypeError):
            pass  # nobody there, or an answer that is none
        return []
