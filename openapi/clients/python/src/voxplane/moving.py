"""A planned move as the caller makes it: the new edge is prepared and taken while the old one goes on; it is left afterwards.

Decides when the edge that is left may be let go: once the new one has its backend and the old one has nothing more to say,
once the new one speaks, or when its lease ends anyway. What is heard of the old one until then is heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from voxplane import messages as wire
from voxplane.links import Link, Links
from voxplane.tickets import Tickets

LINGER_MIN_MS = 200
"""What the caller said last is still on its way through the old edge."""
LINGER_MAX_MS = 2_500
"""Below the old edge's lease of 3 s, which nothing renews any more."""
QUIET_MS = 60
PART_WITHIN_S = 2.0


class Overlap:
    """Two edges at once: the one that is left, and its successor. Pure: `now_ms` is a parameter."""

    def __init__(self, now_ms: float) -> None:
        self._began_ms = now_ms
        self._old_ms = now_ms
        self._backend = False
        self._spoken = False

    def old_spoke(self, now_ms: float) -> bool:
        """Whether this frame of the old edge is heard: the new one has not begun."""
        self._old_ms = now_ms
        return not self._spoken

    def new_spoke(self) -> None:
        self._spoken = True

    def backend_up(self) -> None:
        self._backend = True

    def over(self, now_ms: float) -> bool:
        lasted_ms = now_ms - self._began_ms
        quiet = now_ms - self._old_ms >= QUIET_MS
        return lasted_ms >= LINGER_MAX_MS or (
            lasted_ms >= LINGER_MIN_MS and (self._spoken or (self._backend and quiet))
        )


@dataclass(slots=True)
class Left:
    """The edge that is being left."""

    link: Link
    to_epoch: int
    overlap: Overlap
    told: bool = False


class Moving:
    """`link`: the new edge's, from `move` until it is taken. `tell` speaks to the owner; `go` is told that the edge of this
    epoch is prepared and to be taken."""

    def __init__(
        self,
        tickets: Tickets,
        links: Links,
        *,
        prepare: Callable[[int], Link],
        tell: Callable[[str], None],
        go: Callable[[int], None],
    ) -> None:
        self._tickets, self._links = tickets, links
        self._prepare, self._tell, self._go = prepare, tell, go
        self.link: Link | None = None
        self._going = False
        self._left: Left | None = None

    def asked(self, message: wire.Move | wire.Go) -> None:
        """By the owner. A later move replaces an earlier; where what was prepared has been lost since, it is prepared again."""
        epoch, going = message.epoch, isinstance(message, wire.Go)
        if not self._tickets.has(epoch):
            self.answer(epoch, "no_such_epoch")
            return
        if not going or self.link is None or self.link.epoch != epoch:
            self.cancel()
            self.link = self._prepare(epoch)
        self._going = going
        self._go_if_ready()

    def answer(self, epoch: int, code: str) -> None:
        self._tell(wire.ready(epoch, code))

    def prepared(self, link: Link) -> None:
        self.answer(link.epoch, "")
        self._go_if_ready()

    def failed(self, link: Link) -> None:
        """A prepared edge keeps nobody waiting for ever: until `go` that is no answer."""
        going, self.link, self._going = self._going, None, False
        if going or not link.prepared:
            self.answer(link.epoch, link.refused or "closed")

    def taken(self) -> Link | None:
        """Hands the link over to whoever takes it."""
        link, self.link, self._going = self.link, None, False
        return link

    def cancel(self) -> None:
        self._links.drop(self.taken())

    def leave(self, link: Link, to_epoch: int, now_ms: float) -> None:
        """The owner until now; the new one is attached."""
        self.let_go()
        self._left = Left(link, to_epoch, Overlap(now_ms))

    def is_left(self, link: Link) -> bool:
        return self._left is not None and self._left.link is link

    def old_spoke(self, now_ms: float) -> bool:
        return self._left is not None and self._left.overlap.old_spoke(now_ms)

    def note(self, what: Callable[[Overlap], None]) -> None:
        """Something of the new edge."""
        if self._left is not None:
            what(self._left.overlap)

    def tick(self, now_ms: float) -> None:
        left = self._left
        if left is not None and not left.told and left.overlap.over(now_ms):
            left.told = True
            self._links.spawn(self._part(left))

    async def _part(self, left: Left) -> None:
        """The edge that is left hangs up when it is told where the call is; what it has begun to play is heard before."""
        await left.link.tell(wire.moved(left.to_epoch))
        try:
            async with asyncio.timeout(PART_WITHIN_S):
                await left.link.gone()
        except TimeoutError:
            pass
        self._links.drop(left.link)
        if self._left is left:
            self._left = None

    def let_go(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            self._links.drop(left.link)

    def _go_if_ready(self) -> None:
        if self._going and self.link is not None and self.link.prepared:
            self._go(self.link.epoch)
