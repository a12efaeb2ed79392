"""Makes a failing history small: takes faults out, then calls, as long as the same invariant breaks.

Pure but for the runs it asks for. The rest of the plan stays as it was, so that what is left replays by its numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.plan import Plan
from tests.simulation.run import Outcome, run

RUNS_MAX = 120


def shrink(plan: Plan, broken: str, *, mutation: str = "") -> Outcome:
    """The smallest outcome found, traced. `broken`: the check that the whole plan breaks."""
    runs = 0

    def breaks(candidate: Plan) -> bool:
        nonlocal runs
        runs += 1
        violation = run(candidate, mutation=mutation).violation
        return violation is not None and violation.check == broken

    faults = {f.number for f in plan.faults}
    calls = {c.number for c in plan.calls}
    calls = _least(calls, lambda kept: breaks(plan.keep(faults, kept)), lambda: runs < RUNS_MAX)
    faults = _least(faults, lambda kept: breaks(plan.keep(kept, calls)), lambda: runs < RUNS_MAX)
    return run(plan.keep(faults, calls), mutation=mutation, trace=True)


def _least(kept: set[int], breaks: Callable[[set[int]], bool], may_go_on: Callable[[], bool]) -> set[int]:
    """One by one, again and again, until nothing more can go."""
    smaller = True
    while smaller and len(kept) > 0:
        smaller = False
        for number in sorted(kept, reverse=True):
            if not may_go_on():
                return kept
            if breaks(kept - {number}):
                kept = kept - {number}
                smaller = True
    return kept
