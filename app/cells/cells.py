"""The cells of one instance: whose services serve a key, a project or a call.

Decides nothing but the number: keys and ids carry it. One that this deployment does not have is answered as one that was never made,
by the home cell for a key, with None for an id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from app.connection import is_away
from app.errors import FieldError, Invalid, ResidencyUnsatisfiable
from app.projects.secrets import cell_of
from regions.wire import ids

if TYPE_CHECKING:
    from app.control import Control

Answer = TypeVar("Answer")
ANSWER_WITHIN_S = 5.0


class Cells:
    """In the order of the settings: the home cell first. Iterating gives each one's `Control`."""

    def __init__(self) -> None:
        self._all: dict[int, Control] = {}
        self._lone = True

    def add(self, number: int, control: Control) -> None:
        self._all[number] = control
        self._lone = len(self._all) == 1

    def __iter__(self) -> Iterator[Control]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    @property
    def home(self) -> Control:
        """The cell that holds the fleet."""
        return next(iter(self._all.values()))

    def get(self, number: int) -> Control | None:
        return self._all.get(number)

    def of(self, id_: UUID | None) -> Control | None:
        """Of a project, a call, or whatever else was made in a cell."""
        return self._all.get(ids.cell_of(id_)) if id_ is not None else None

    def asked_by(self, authorization: str | None) -> Control:
        """Of the key in a request; the home cell for everyone else: operators, edges, and whoever has no key that could be."""
        if not self._lone and authorization:
            number = cell_of(authorization.partition(" ")[2])
            if number is not None and (found := self._all.get(number)) is not None:
                return found
        return self.home

    def for_project(self, jurisdiction: str | None, number: int | None) -> Control:
        """Where a new project goes: the cell that is named, else the first that lies there, else the home cell. Raises `Invalid` or
        `ResidencyUnsatisfiable`."""
        if number is not None and number not in self._all:
            raise Invalid(
                "There is no such cell.",
                errors=[FieldError(pointer="/cell", detail="unknown")],
                fix=f"Use one of {', '.join(map(str, self._all))}, or leave it out.",
            )
        named = [self._all[number]] if number is not None else list(self)
        found = [c for c in named if jurisdiction in (None, c.cell.jurisdiction)]
        if not found:
            places = sorted({c.cell.jurisdiction for c in self} - {""})
            raise ResidencyUnsatisfiable(
                f"No such cell of this deployment lies in {jurisdiction}.",
                errors=[FieldError(pointer="/jurisdiction", detail="no such cell lies there")],
                fix=f"Use one of {', '.join(places)}." if places else "Leave it out: CELLS names none.",
                extra={"allowed_jurisdictions": places},
            )
        return found[0]

    async def ask(self, question: Callable[[Control], Awaitable[Answer]]) -> tuple[list[Answer], list[int]]:
        """What all cells answer, in their order, and the numbers of those that are away. Raises where all of them are."""

        async def one(control: Control) -> Answer:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await question(control)

        found = await asyncio.gather(*(one(c) for c in self), return_exceptions=True)
        failed = [
            (c.cell.number, e) for c, e in zip(self, found, strict=True) if isinstance(e, BaseException)
        ]
        for _, error in failed:
            if not is_away(error) or len(failed) == len(found):
                raise error
        return [a for a in found if not isinstance(a, BaseException)], [number for number, _ in failed]
