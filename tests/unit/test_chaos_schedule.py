"""The schedule of `make chaos`: the same for a seed, bounded, and with time to breathe."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.schedule import AT_ONCE_MAX, CALM_S, KINDS, Fault, links_of, plan

REGIONS = ("us-east", "eu-west", "ap-south")
LENGTH_S = 600.0


def of(seed: int) -> list[Fault]:
    return plan(seed, LENGTH_S, REGIONS, 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_breathes(seed: int) -> None:
    faults = of(seed)
    assert faults == of(seed)
    assert 60 < len(faults) < 300
    for fault in faults:
        others = [f for f in faults if f is not fault and f.at_s <= fault.at_s < f.at_s + f.for_s]
        assert len(others) < AT_ONCE_MAX
        assert fault.target not in {f.target for f in others}
        assert fault.at_s > 5.0 and fault.at_s + fault.for_s < LENGTH_S
    ends = [max(f.at_s + f.for_s for f in faults[: i + 1]) for i in range(len(faults))]
    calms = [after.at_s - end for end, (_, after) in zip(ends, pairwise(faults), strict=False)]
    assert sum(calm >= CALM_S for calm in calms) >= 5


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {f.kind for seed in range(10) for f in of(seed)}
    assert drawn == {kind for kind, _, _ in KINDS}
    assert {f.way for seed in range(10) for f in of(seed)} == {"", "both", "out", "back"}


def test_a_target_names_its_links() -> None:
    names = [
        "caller>us-east",
        "us-east>api-0",
        "us-east>api-1",
        "us-east>valkey",
        "api-0>valkey.us-east",
        "eu-west>api-0",
    ]
    assert links_of("us-east>api-*", names) == ["us-east>api-0", "us-east>api-1"]
    assert links_of("*>us-east|us-east>*", names) == names[:4]
    assert links_of("api-0>valkey.us-east", names) == ["api-0>valkey.us-east"]
