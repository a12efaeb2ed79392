"""Keeps what was made of something, for as long as that is among the last that were asked for. Pure.

A picture of the fleet is made four times a second and asked for by every create; there is one for each cell, and an instance serves
all of them in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

KEPT = 16
Of = TypeVar("Of")
Made = TypeVar("Made")


class Newest(Generic[Of, Made]):
    """`make`: from an immutable thing. Told apart by identity, for comparing two fleets takes as long as making it."""

    def __init__(self, make: Callable[[Of], Made], kept: int = KEPT) -> None:
        self._make = make
        self._kept = kept
        self._made: dict[int, tuple[Of, Made]] = {}

    def of(self, it: Of) -> Made:
        # a number is somebody else's only once this one is gone, and what is in here is not
        found = self._made.get(id(it))
        if found is not None:
            return found[1]
        made = self._make(it)
        self._made[id(it)] = (it, made)
        if len(self._made) > self._kept:
            del self._made[next(iter(self._made))]
        return made
