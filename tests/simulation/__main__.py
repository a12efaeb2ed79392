"""``make sim``: seeds, then the checkers checked, then the model held to PostgreSQL.

``SEEDS=n`` how many (2,000); ``SEED=s`` replays one with its trace, ``KEEP=0,2`` with these faults alone, ``CALLS=1`` with these
calls, ``MUTATION=name`` with a check switched off; ``ONLY=seeds|mutations|agreement`` one part. Exit code 1 where an invariant
broke, where a check that was switched off went unnoticed, or where model and database differ.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from tests.simulation.agreement import agree, noticed
from tests.simulation.batch import Batch, coverage_table, run_seeds
from tests.simulation.directed import plan_for
from tests.simulation.mutations import MUTATIONS
from tests.simulation.plan import Plan, draw_plan
from tests.simulation.run import Outcome, run
from tests.simulation.shrink import shrink
from tests.simulation.watch_mutations import WATCH_MUTATIONS, watch_with
from tests.support.engines import running_engines

SEEDS = 2_000
SEEDS_PER_MUTATION = 2_000
HISTORIES = 1_000
HISTORIES_PER_MUTATION = 2_000
SEEDS_PER_WATCH = 20
"""Of the log's seeds there are so many to one of the detector's."""
WATCHES_PER_MUTATION = 100
TELLINGS = 20
TRACE_LINES = 200
PARTS = ("seeds", "mutations", "agreement")


def main() -> int:
    only = os.environ.get("ONLY", "")
    if only and only not in PARTS:
        sys.stderr.write(f"ONLY={only}: choose one of {', '.join(PARTS)}\n")
        return 2
    if os.environ.get("SEED"):
        return replay(int(os.environ["SEED"]))
    good = True
    if only in ("", "seeds"):
        seeds = int(os.environ.get("SEEDS") or SEEDS)
        good &= simulate(seeds)
        good &= simulate_detector(max(1, seeds // SEEDS_PER_WATCH))
    if only in ("", "mutations"):
        good &= check_the_checkers()
        good &= check_the_detectors_checkers()
    if only in ("", "agreement"):
        good &= compare_with_postgres()
    return 0 if good else 1


def simulate(seeds: int) -> bool:
    batch = Batch()
    for batch in run_seeds(range(1, seeds + 1)):
        if batch.seeds % 200 == 0 or batch.seeds == seeds:
            per_min = batch.seeds / batch.took_s * 60
            print(f"  {batch.seeds} seeds, {per_min:,.0f} per minute, {len(batch.broken)} broken", flush=True)
    print(
        f"\n{batch.seeds} seeds in {batch.took_s:.0f} s; {batch.steps / batch.seeds:,.0f} steps each, at least {batch.steps_min}, and"
        f" at least {batch.faults_min} faults\n\nfaults by the state of a call when they struck:\n{coverage_table(batch.covered)}"
    )
    for seed, violation in sorted(batch.broken.items())[:3]:
        print(f"\nseed {seed}: {violation.check}: {violation.what}")
        show(shrink(draw_plan(seed), violation.check))
    if len(batch.broken) > 3:
        print(f"\nbroken as well: {', '.join(map(str, sorted(batch.broken)[3:]))}")
    return not batch.broken


def check_the_checkers() -> bool:
    """Each check is switched off in turn: the seeds must notice."""
    print("\nchecks switched off in the simulator:")
    good = True
    for name, mutation in MUTATIONS.items():
        if mutation.rare:
            good &= tell_its_story(name)
            continue
        seeds = range(1, SEEDS_PER_MUTATION + 1)
        *_, batch = run_seeds(seeds, mutation=name, until_broken=True)
        if batch.broken:
            seed, violation = min(batch.broken.items())
            print(f"  {name:8} noticed by seed {seed}: {violation.check} ({mutation.what})", flush=True)
        else:
            print(f"  {name:8} NOT NOTICED in {batch.seeds} seeds: {mutation.what}")
            good = False
    return good


def tell_its_story(name: str) -> bool:
    for seed in range(1, TELLINGS + 1):
        violation = run(plan_for(name, seed), mutation=name).violation
        if violation is not None:
            print(
                f"  {name:8} noticed by telling {seed}: {violation.check} ({MUTATIONS[name].what})",
                flush=True,
            )
            return True
    print(f"  {name:8} NOT NOTICED in {TELLINGS} tellings: {MUTATIONS[name].what}")
    return False


def simulate_detector(seeds: int) -> bool:
    """In this process: a world of its own, and a small one."""
    good, looks, changes = True, 0, 0
    for seed in range(1, seeds + 1):
        world = watch_with(seed)
        looks, changes = looks + world.counts["looks"], changes + world.counts["transitions"]
        if world.violation is not None:
            good = False
            print(f"  detector's seed {seed}: {world.violation.check}: {world.violation.what}")
            print(f"    {sorted(world.troubles, key=lambda t: t.at_s)}")
    print(f"\nthe detector: {seeds} seeds, {looks:,} looks, {changes:,} changes of a verdict", flush=True)
    return good


def check_the_detectors_checkers() -> bool:
    print("\nswitched off in the detector:")
    good = True
    for name, mutation in WATCH_MUTATIONS.items():
        for seed in range(1, WATCHES_PER_MUTATION + 1):
            violation = watch_with(seed, name).violation
            if violation is not None:
                print(f"  {name:8} noticed by seed {seed}: {violation.check} ({mutation.what})", flush=True)
                break
        else:
            print(f"  {name:8} NOT NOTICED in {WATCHES_PER_MUTATION} seeds: {mutation.what}")
            good = False
    return good


def compare_with_postgres() -> bool:
    print("\nthe model beside PostgreSQL:")
    good = True
    with running_engines() as engines, asyncio.Runner() as runner:
        began = time.monotonic()
        found = runner.run(agree(engines, HISTORIES))
        good &= found is None
        print(f"  {found or f'{HISTORIES} histories agree'}, in {time.monotonic() - began:.0f} s", flush=True)
        for name, mutation in MUTATIONS.items():
            if mutation.sql:
                seen = runner.run(noticed(engines, name, HISTORIES_PER_MUTATION))
                good &= seen is not None
                said = f"noticed by history {seen.history} ({seen.where})" if seen else "NOT NOTICED"
                print(f"  {name:8} switched off in SQL: {said}", flush=True)
    return good


def replay(seed: int) -> int:
    plan = draw_plan(seed)
    outcome = run(_kept(plan), mutation=os.environ.get("MUTATION", ""), trace=True)
    show(outcome, lines=len(outcome.trace))
    return 1 if outcome.violation else 0


def _kept(plan: Plan) -> Plan:
    faults, calls = os.environ.get("KEEP"), os.environ.get("CALLS")
    return plan.keep(
        {f.number for f in plan.faults} if faults is None else _numbers(faults),
        {c.number for c in plan.calls} if calls is None else _numbers(calls),
    )


def _numbers(text: str) -> set[int]:
    return {int(n) for n in text.split(",") if n.strip()}


def show(outcome: Outcome, *, lines: int = TRACE_LINES) -> None:
    plan = outcome.plan
    kept = ",".join(str(f.number) for f in plan.faults)
    calls = ",".join(str(c.number) for c in plan.calls)
    print(
        f"\nmake sim SEED={plan.seed} KEEP={kept} CALLS={calls}    # {outcome.steps} steps, digest {outcome.digest}"
    )
    for fault in plan.faults:
        print(f"  {fault}")
    if len(outcome.trace) > lines:
        print(f"  … {len(outcome.trace) - lines} lines before")
    print("\n".join("  " + line[:240] for line in outcome.trace[-lines:]))
    if outcome.violation is not None:
        print(f"BROKEN {outcome.violation.check}: {outcome.violation.what} ({outcome.violation.call})")
    else:
        print("nothing broke")


if __name__ == "__main__":
    sys.exit(main())
