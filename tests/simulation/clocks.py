"""What a machine's clocks show, and the stand-ins for time, chance and Valkey while a seed runs.

Decides nothing of the world's time: that is the loop's. Production modules read `time`, `os.urandom`, `random` and
`redis.asyncio.from_url`; for the length of `standing_in` these answer from the seed and from whoever is running.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import redis.asyncio

from tests.simulation.loop import SimLoop

WALL_BASE_S = 1_760_000_000
MONOTONIC_BASE_S = 1_000.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Machine:
    """A computer and its clocks. `rate`: how fast its clocks run; `offset_s`: how far its wall clock is off."""

    __slots__ = ("loop", "name", "offset_s", "rate", "region")

    def __init__(
        self, loop: SimLoop, name: str, region: str, *, offset_s: float = 0.0, rate: float = 1.0
    ) -> None:
        self.loop = loop
        self.name = name
        self.region = region
        self.offset_s = offset_s
        self.rate = rate

    def wall_s(self) -> float:
        return WALL_BASE_S + self.offset_s + self.loop.now * self.rate

    def wall(self) -> datetime:
        return EPOCH + timedelta(microseconds=round(self.wall_s() * 1e6))


class NodeClock:
    """`app.clock.Clock` on a simulated machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def now(self) -> datetime:
        return self._machine.wall()

    def now_ms(self) -> int:
        return int(self._machine.wall_s() * 1000)

    def monotonic_s(self) -> float:
        return monotonic_s(self._machine.loop)


def monotonic_s(loop: SimLoop) -> float:
    """Of whoever is running; it does not count the time in which the machine was suspended."""
    life = loop.current
    machine = life.machine
    awake_s = loop.now - loop.skipped_s
    if machine is None:
        return MONOTONIC_BASE_S + awake_s
    return MONOTONIC_BASE_S + (awake_s - life.slept_s) * machine.rate  # type: ignore[no-any-return]


def lease_s(loop: SimLoop) -> float:
    """Of whoever is running; it counts all time."""
    machine = loop.current.machine
    return MONOTONIC_BASE_S + loop.now * (machine.rate if machine is not None else 1.0)


def wall_s(loop: SimLoop) -> float:
    machine = loop.current.machine
    return machine.wall_s() if machine is not None else WALL_BASE_S + loop.now


class Bytes:
    """`os.urandom` from a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = hashlib.blake2b(b"bytes %d" % seed, digest_size=16).digest()
        self._random = random.Random(int.from_bytes(self._seed, "big"))

    def __call__(self, n: int) -> bytes:
        return self._random.getrandbits(8 * n).to_bytes(n, "big")


@contextmanager
def standing_in(loop: SimLoop, seed: int, from_url: Callable[..., Any]) -> Iterator[None]:
    """Until the end of the block nothing of this process's own time and chance reaches production code."""
    urandom = Bytes(seed)
    lease_clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def clock_gettime_ns(which: int) -> int:
        seconds = lease_s(loop) if which == lease_clock else monotonic_s(loop)
        return int(seconds * 1e9)

    clocks: dict[str, Any] = {
        "monotonic": lambda: monotonic_s(loop),
        "monotonic_ns": lambda: int(monotonic_s(loop) * 1e9),
        "perf_counter": lambda: monotonic_s(loop),
        "time": lambda: wall_s(loop),
        "time_ns": lambda: int(wall_s(loop) * 1e9),
        "clock_gettime_ns": clock_gettime_ns,
    }
    before = random.getstate()
    random.seed(seed)
    try:
        with (
            mock.patch.multiple(time, **clocks),
            mock.patch.object(os, "urandom", urandom),
            mock.patch.object(random, "_urandom", urandom),
            mock.patch.object(redis.asyncio, "from_url", from_url),
        ):
            yield
    finally:
        random.setstate(before)
