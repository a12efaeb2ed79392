"""The simulation, in small: seeds that must stay clean, a story for each check that is switched off, and that it all replays."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation.directed import plan_for
from tests.simulation.mutations import MUTATIONS
from tests.simulation.plan import COMMANDS, KINDS, draw_plan
from tests.simulation.run import run
from tests.simulation.shrink import shrink

ROOT = Path(__file__).parents[2]
CLEAN = (*range(1, 21), 107, 310)
"""Of the last two, commands alone: moves and drains for few places, on some trees one of them past its deadline."""
TRIES = 12


@pytest.mark.parametrize("seed", CLEAN)
def test_nothing_breaks(seed: int) -> None:
    outcome = run(draw_plan(seed))
    assert outcome.violation is None, f"make sim SEED={seed}"
    assert outcome.steps >= 500
    assert outcome.faults >= 3


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_check_that_is_switched_off_is_noticed(name: str) -> None:
    """In one of a few tellings of its story; and with the check in place that very one breaks nothing."""
    plans = (plan_for(name, seed) for seed in range(1, TRIES + 1))
    told = next((plan for plan in plans if run(plan, mutation=name).violation is not None), None)
    assert told is not None
    assert run(told).violation is None


def test_the_same_seed_gives_the_same_steps_here_and_in_another_process() -> None:
    seed = 7
    first, second = (run(draw_plan(seed), trace=True).digest for _ in range(2))
    program = (
        "from tests.simulation.plan import draw_plan; from tests.simulation.run import run\n"
        f"print(run(draw_plan({seed}), trace=True).digest)"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "5"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert first == second == elsewhere.stdout.strip()
    assert first != run(draw_plan(seed + 1), trace=True).digest


def test_tracing_changes_nothing() -> None:
    plan = draw_plan(3)
    silent, traced = run(plan), run(plan, trace=True)
    assert (silent.steps, silent.counts) == (traced.steps, traced.counts)
    assert traced.trace


def test_what_stands_in_is_put_back() -> None:
    before = (time.monotonic, time.time_ns, os.urandom, random.getstate())
    run(draw_plan(2))
    assert (time.monotonic, time.time_ns, os.urandom, random.getstate()) == before
    assert time.time() > 1_760_000_000


def test_a_failing_history_is_made_small_and_breaks_in_the_same_way() -> None:
    plan = plan_for("lease")
    broken = run(plan, mutation="lease").violation
    assert broken is not None
    small = shrink(plan, broken.check, mutation="lease")
    assert small.violation is not None
    assert small.violation.check == broken.check
    assert len(small.plan.faults) + len(small.plan.calls) < len(plan.faults) + len(plan.calls)
    assert small.trace[-1].strip()


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {fault.kind for seed in range(300) for fault in draw_plan(seed).faults}
    assert drawn == KINDS.keys() | COMMANDS.keys()
