"""Starts again what has ended by itself. Decides what goes on where one thing cannot be started: all that can do without it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import httpx

from app.local.process import EngineError

CANNOT_START = (EngineError, httpx.HTTPError, OSError)
"""It has ended again before it was ready, or who is asked for it is away."""


@dataclass(frozen=True, slots=True)
class Part:
    """`start` raises one of `CANNOT_START`. `needed`: nothing after it would get ready without it."""

    what: str
    runs: bool
    start: Callable[[], Awaitable[object]]
    needed: bool = False


async def start_again(parts: Iterable[Part], told: Callable[[str], None]) -> list[str]:
    """Those that have ended, in their order; the names of those that are back, each of them `told` by then. Raises the first
    error, of `CANNOT_START`, when all has been tried."""
    back: list[str] = []
    errors: list[Exception] = []
    for part in parts:
        if part.runs:
            continue
        try:
            await part.start()
        except CANNOT_START as error:
            errors.append(error)
            if part.needed:
                break
            continue
        back.append(part.what)
        told(part.what)
    if errors:
        raise errors[0]
    return back


class Engine(Protocol):
    @property
    def running(self) -> bool:
        """False once it has ended by itself, and where it could not be started."""
        ...

    async def start(self) -> None:
        """Raises `EngineError`; what was begun is undone then."""
        ...

    async def stop(self) -> None: ...


def engine_part(what: str, engine: Engine, *, needed: bool = False) -> Part:
    async def start() -> None:
        await engine.stop()
        await engine.start()

    return Part(what, engine.running, start, needed)
