"""Keeps an edge told of what changes: whom to look at, whom to measure, that another key is wanted. Said when its uplink opens, and
again when it is another.

Decides when it is said. What it is, is the business of `Observing`, `Measuring` and `UplinkKey`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

from app.fleet.edge_keys import UplinkKey
from app.fleet.ports import Measuring, Observing
from regions.wire.observations import Neighbours
from regions.wire.uplink import ToEdge

LOOK_S = 1.0
MEASURE_S = 10.0
KEY_S = 0.5

T = TypeVar("T", bound=ToEdge)


def telling(
    edge: UUID,
    send: Callable[[ToEdge], Awaitable[None]],
    observing: Observing | None,
    measuring: Measuring | None,
    key: UplinkKey | None = None,
) -> list[Coroutine[Any, Any, None]]:
    """To be run as long as the uplink lasts."""
    told: list[Coroutine[Any, Any, None]] = []
    if observing is not None:
        nobody = Neighbours(targets=[])
        told.append(keep_told(lambda: observing.neighbours(edge), send, LOOK_S, told=nobody))
    if measuring is not None:
        told.append(keep_told(lambda: measuring.measure_for(edge), send, MEASURE_S))
    if key is not None:
        told += [keep_told(key.wanted, send, KEY_S), key.over()]
    return told


async def keep_told(
    ask: Callable[[], T | None], send: Callable[[T], Awaitable[None]], every_s: float, told: T | None = None
) -> None:
    """Until cancelled, or `send` raises. `told`: what goes without saying. None is never said."""
    while True:
        now = ask()
        if now is not None and now != told:
            await send(now)
            told = now
        await asyncio.sleep(every_s)
