"""Plans made by hand: for each check that can be switched off, a story in which that must show, however the rest is timed. Pure.

Drawn seeds find it too, but which of them changes with every pause in production code; these stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.simulation.plan import CAPACITY, REGIONS, Action, CallPlan, Fault, Plan

HOME, NEXT, THIRD = REGIONS
LATENCY_S = 0.02


def plan_for(mutation: str, seed: int = 1) -> Plan:
    if mutation in _COMMANDS:
        regions, capacity, commands = _COMMANDS[mutation]
        return _plan(seed, commands, regions, capacity, ends_s=16.0)
    return _plan(seed, _FAULTS[mutation])


def _plan(
    seed: int,
    faults: Iterable[Fault],
    regions: tuple[str, ...] = (HOME,),
    capacity: int = CAPACITY,
    ends_s: float = 6.5,
) -> Plan:
    latency_s = {(a, b): LATENCY_S for a in REGIONS for b in REGIONS if a != b}
    calls = tuple(_call(i, region, ends_s) for i, region in enumerate(regions))
    return Plan(seed=seed, calls=calls, faults=tuple(faults), latency_s=latency_s, capacity=capacity)


def _call(number: int, region: str, ends_s: float) -> CallPlan:
    talk = tuple(Action(at_s=1.0 + 0.25 * i, kind="say", value=f"u{number}-{i}") for i in range(20))
    return CallPlan(
        number=number, region=region, backend=NEXT, fallback=None, at_s=0.5 + 0.4 * number,
        actions=(*talk, Action(at_s=ends_s, kind="hangup")),
    )  # fmt: skip


def _command(number: int, verb: str, at_s: float, for_s: float = 9.0, **more: Any) -> Fault:
    return Fault(
        number=number, kind=f"ops.{verb}", at_s=at_s, for_s=for_s, **{"target": HOME, "other": "edge", **more}
    )


def _each(kind: str, times: int, **more: str) -> tuple[Fault, ...]:
    return tuple(Fault(number=i, kind=kind, at_s=1.2 + 0.3 * i, steps=i, **more) for i in range(times))  # type: ignore[arg-type]


_CUT_WAITS = (
    Fault(number=0, kind="waits.cut", at_s=1.0, for_s=5.0),
    Fault(number=1, kind="cut.replication", at_s=2.0, for_s=0.8),
    Fault(number=2, kind="hooks.down", at_s=1.0, for_s=1.0),
)
_FAULTS: dict[str, tuple[Fault, ...]] = {
    # another edge writes under the owner's epoch, again and again
    "owner": _each("impostor", 12, target=NEXT, other=HOME),
    # the owner is cut off from the log and from its caller; when the log is back it has what nobody adopted
    "fence": (
        Fault(number=0, kind="cut.uplink", at_s=0.4, for_s=5.0, target=HOME),
        Fault(number=1, kind="cut.edge", at_s=2.0, for_s=3.5, target=HOME, one_way=True),
        Fault(number=2, kind="hooks.down", at_s=1.0, for_s=1.0),
    ),
    "hash": _each("rewriter", 12, target=HOME),
    # the owner is stopped, its caller moves on, and it goes on after its lease
    "lease": (
        Fault(number=0, kind="edge.stop", at_s=2.0, for_s=4.0, target=HOME),
        Fault(number=1, kind="standby.crash", at_s=1.5, for_s=1.0, steps=1),
        Fault(number=2, kind="hooks.down", at_s=1.0, for_s=1.0),
    ),
    # what the owner wrote is stored and it never hears so: its successor brings it again
    "origin": (
        Fault(number=0, kind="cut.uplink", at_s=1.5, for_s=5.0, target=HOME, one_way=True, steps=1),
        Fault(number=1, kind="cut.edge", at_s=2.6, for_s=4.0, target=HOME),
        Fault(number=2, kind="hooks.down", at_s=1.0, for_s=1.0),
    ),
    # what is stored is never heard to be: it comes again over the next uplink
    "spool": (
        Fault(number=0, kind="cut.uplink", at_s=1.5, for_s=4.5, target=HOME, one_way=True, steps=1),
        Fault(number=1, kind="valkey.loss", at_s=1.0, for_s=1.0, target=NEXT),
        Fault(number=2, kind="hooks.down", at_s=1.0, for_s=1.0),
    ),
    "quorum": _CUT_WAITS,
}

_COMMANDS: dict[str, tuple[tuple[str, ...], int, tuple[Fault, ...]]] = {
    # calls are written to through two instances, and what one of them wrote is visible before it is durable
    "acked": ((HOME, NEXT, THIRD), CAPACITY, _CUT_WAITS),
    "told": ((HOME, NEXT, THIRD), CAPACITY, _CUT_WAITS),
    # the nearest edge is cordoned before the second call comes
    "held": ((HOME, HOME, HOME), CAPACITY, (_command(0, "cordon", 0.4), _command(1, "move", 3.0))),
    # two calls leave, and each of the others has room for one
    "room": ((HOME, HOME, NEXT, THIRD), 2, (_command(0, "drain", 4.5, amount=0.5),)),
    # an edge is drained and calls of another are moved in the same moment, and the third has two places
    "seen": (
        (HOME, HOME, NEXT, NEXT),
        2,
        (
            _command(0, "cordon", 3.0),
            _command(1, "drain", 7.0, amount=0.5),
            *(_command(2 + i, "move", 7.04 + 0.02 * i, steps=2 + i % 2, amount=1.0) for i in range(6)),
        ),
    ),
    # everybody has as much as may be, and an edge dies
    "full": ((HOME, NEXT, THIRD), 1, (Fault(number=0, kind="edge.crash", at_s=3.0, for_s=4.0, target=HOME),)),
    # a drain waits for the end of a turn, and is looked at again and again
    "one_move": ((HOME,), CAPACITY, (_command(0, "drain", 4.5, amount=3.0),)),
    "make": ((HOME,), CAPACITY, (_command(0, "drain", 4.5, amount=3.0),)),
    "forced": ((HOME,), CAPACITY, (_command(0, "drain", 3.0, amount=0.5),)),
}
