"""Plans made by hand: for each check that can be switched off, a story in which that must show, however the rest is timed. Pure.

Drawn seeds find it too, but which of them changes with every pause in production code; these stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.simulation.plan import REGIONS, Action, CallPlan, Fault, Plan

HOME, NEXT, THIRD = REGIONS
LATENCY_S = 0.02


def plan_for(mutation: str, seed: int = 1) -> Plan:
    return _plan(seed, _FAULTS[mutation])


def _plan(seed: int, faults: Iterable[Fault]) -> Plan:
    talk = tuple(Action(at_s=1.0 + 0.25 * i, kind="say", value=f"u{i}") for i in range(20))
    call = CallPlan(
        number=0, region=HOME, backend=NEXT, fallback=None, at_s=0.5, actions=(*talk, Action(at_s=6.5, kind="hangup"))
    )  # fmt: skip
    latency_s = {(a, b): LATENCY_S for a in REGIONS for b in REGIONS if a != b}
    return Plan(seed=seed, calls=(call,), faults=tuple(faults), latency_s=latency_s)


def _each(kind: str, times: int, **more: str) -> tuple[Fault, ...]:
    return tuple(Fault(number=i, kind=kind, at_s=1.2 + 0.3 * i, steps=i, **more) for i in range(times))  # type: ignore[arg-type]


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
    "quorum": (
        Fault(number=0, kind="waits.cut", at_s=1.0, for_s=5.0),
        Fault(number=1, kind="cut.replication", at_s=2.0, for_s=0.8),
        Fault(number=2, kind="hooks.down", at_s=1.0, for_s=1.0),
    ),
}
