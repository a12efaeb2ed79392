"""Which faults strike, when and for how long, from a seed. Pure.

1. The first seconds and the last are quiet, and after `CALM_EVERY_S` of faults comes a calm of `CALM_S`.
2. At most two faults are in force at once, and never two on one target: a system that never breathes proves nothing.
3. A fault is one of `KINDS`, by its weight; where it strikes and how long it lasts is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

QUIET_FIRST_S = 6.0
QUIET_LAST_S = 4.0
PAUSE_S = (1.0, 5.0)
CALM_EVERY_S = 40.0
CALM_S = 8.0
DOWN_S = (0.3, 4.0)
STOPPED_S = (1.0, 8.0)
CUT_S = (1.0, 8.0)
SLOW_MS = (30.0, 300.0)
AT_ONCE_MAX = 2
DRAWS_MAX = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind`: ``kill`` or ``stop`` (a process), ``cut``, ``reset`` or ``slow`` (links). `target`: ``edge:us-east``, ``api:0``,
    ``valkey:us-east``, ``postgres``, ``backend``; of links a pattern of their names. `way` and `ms` where they apply."""

    at_s: float
    for_s: float
    kind: str
    target: str
    way: str = ""
    ms: float = 0.0

    def __str__(self) -> str:
        more = f" {self.way}" if self.way else f" {self.ms:.0f} ms" if self.ms else ""
        lasts = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.kind} {self.target}{more}{lasts}"


KINDS: tuple[tuple[str, str, int], ...] = (
    ("kill", "edge", 6),
    ("kill", "api", 4),
    ("kill", "valkey", 3),
    ("kill", "postgres", 3),
    ("kill", "backend", 1),
    ("stop", "edge", 5),
    ("stop", "api", 4),
    ("stop", "valkey", 2),
    ("cut", "caller>R", 3),
    ("cut", "R>api-I", 3),
    ("cut", "R>api-*", 3),
    ("cut", "R>valkey", 2),
    ("cut", "*>R|R>*", 2),
    ("cut", "api-I>valkey.R", 1),
    ("cut", "api-I>postgres", 3),
    ("cut", "edges>backend", 1),
    ("reset", "caller>R", 2),
    ("reset", "R>api-I", 2),
    ("reset", "api-I>postgres", 2),
    ("slow", "R>api-*", 1),
    ("slow", "api-I>postgres", 1),
    ("slow", "caller>R", 1),
)
"""Kind, target (R: some region, I: some instance) and weight."""


def plan(seed: int, length_s: float, regions: Sequence[str], instances: int) -> list[Fault]:
    """In the order in which they strike."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    now_s, calm_at_s = QUIET_FIRST_S, CALM_EVERY_S
    while now_s < length_s - QUIET_LAST_S:
        if now_s >= calm_at_s:
            now_s = max([now_s, *(f.at_s + f.for_s for f in faults)]) + CALM_S
            calm_at_s = now_s + CALM_EVERY_S
            continue
        fault = _draw(chance, now_s, length_s - QUIET_LAST_S, regions, instances, faults)
        if fault is not None:
            faults.append(fault)
        now_s += chance.uniform(*PAUSE_S)
    return faults


def _draw(
    chance: random.Random,
    at_s: float,
    until_s: float,
    regions: Sequence[str],
    instances: int,
    before: list[Fault],
) -> Fault | None:
    active = [f for f in before if f.at_s + f.for_s > at_s]
    if len(active) >= AT_ONCE_MAX:
        return None
    for _ in range(DRAWS_MAX):
        kind, wanted, _ = chance.choices(KINDS, [weight for _, _, weight in KINDS])[0]
        region, instance = chance.choice(list(regions)), chance.randrange(instances)
        target = _target(wanted, region, instance)
        if any(f.target == target for f in active):
            continue
        lasts_s = {"kill": DOWN_S, "stop": STOPPED_S, "reset": (0.0, 0.0)}.get(kind, CUT_S)
        for_s = min(chance.uniform(*lasts_s), until_s - at_s)
        way = chance.choice(("both", "both", "out", "back")) if kind == "cut" else ""
        ms = chance.uniform(*SLOW_MS) if kind == "slow" else 0.0
        return Fault(at_s, for_s, kind, target, way, ms)
    return None


def _target(wanted: str, region: str, instance: int) -> str:
    match wanted:
        case "edge" | "valkey":
            return f"{wanted}:{region}"
        case "api":
            return f"api:{instance}"
    return wanted.replace("R", region).replace("I", str(instance))


def links_of(pattern: str, names: Sequence[str]) -> list[str]:
    """The links that a target names: alternatives divided by ``|``, ``*`` for anything on one side of the ``>``."""
    found = []
    for name in names:
        source, _, sink = name.partition(">")
        for alternative in pattern.split("|"):
            left, _, right = alternative.partition(">")
            if _matches(left, source) and _matches(right, sink):
                found.append(name)
                break
    return found


def _matches(pattern: str, side: str) -> bool:
    return side.startswith(pattern[:-1]) if pattern.endswith("*") else side == pattern
