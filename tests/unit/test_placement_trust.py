"""What lies do to what strangers are taken to look like, and to what they are told to measure: little, whatever is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.placement.networks import allocation_of, network_from
from app.placement.panel import LOOKED_AT_MAX, OF_ONE_ALLOCATION_MAX, Panel
from app.placement.profiles import LANDMARKS, Profiles, profiles_of
from app.placement.scenarios import NEAR_MS
from app.placement.trust import EXCESS_MS, JUDGES_MIN, TRUST_MIN, trust_in

REGIONS = tuple(f"r{i:02}" for i in range(10))
NOW = 500_000
LATE_MS = st.lists(st.sampled_from([0.0, 5.0, 20.0, 60.0, 150.0, 500.0, 6_000.0]), min_size=10, max_size=10)


def world(count: int = 120, seed: int = 1) -> np.ndarray:
    """Round trips from networks in a plane to regions in it, with a last mile each."""
    rng = np.random.default_rng(seed)
    at, sites = rng.uniform(0, 150, (count, 2)), np.random.default_rng(9).uniform(0, 150, (len(REGIONS), 2))
    rows: np.ndarray = np.linalg.norm(at[:, None] - sites, axis=2) + 4
    return rows + rng.uniform(0, 2, rows.shape) + rng.exponential(3, (count, 1))


def test_who_answers_its_nearest_region_late_is_believed_no_more() -> None:
    rows = world()
    before = trust_in(rows)
    believed = np.argsort(-before, kind="stable")[:12].tolist()
    lied = rows.copy()
    for i in believed:
        lied[i, rows[i].argmin()] = 500.0
    after = trust_in(lied)
    assert after[believed].max() < 0.05
    others = np.delete(np.arange(len(rows)), believed)
    assert after[others].sum() > 0.9 * before[others].sum()


def test_honest_networks_are_mostly_believed() -> None:
    assert np.median(trust_in(world())) > 0.75


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 119), st.lists(LATE_MS, min_size=1, max_size=3), st.integers(1, 4))
def test_late_answers_of_a_few_move_what_is_expected_of_their_like_by_little(
    twin: int, lies: list[list[float]], times: int
) -> None:
    """They pass for one network wherever they do not answer late; a stranger just like it has measured three of those regions."""
    rows = world()
    late = np.array(lies * times)[:5]
    honest = [c for c in range(len(REGIONS)) if not late[:, c].any()][:3]
    if not honest:
        return
    evidence = {c: float(rows[twin, c]) for c in honest}
    before = profiles_of(REGIONS, rows).expected(evidence)
    told = profiles_of(REGIONS, np.concatenate([rows, rows[twin] + late]))
    # as much for each as an honest network would have to outweigh that is as like and believed whole: this one is believed less
    assert (told.expected(evidence) - before).max() <= len(late) * EXCESS_MS / 2 / told.trust[twin]


@settings(max_examples=40, deadline=None)
@given(st.lists(LATE_MS, min_size=1, max_size=12))
def test_what_a_tenth_say_costs_the_landmarks_no_more_than_their_votes(lies: list[list[float]]) -> None:
    rows = world()
    late = np.array(lies)
    told = np.concatenate([rows, rows[: len(late)] + late])

    def found(landmarks: tuple[int, ...], profiles: Profiles) -> float:
        """How many of the honest have one of the landmarks as near as any, as far as each is believed."""
        near = rows[:, list(landmarks)].min(axis=1) <= rows.min(axis=1) + NEAR_MS
        return float(near @ profiles.trust[: len(rows)])

    after = profiles_of(REGIONS, told)
    best = max(found((a, b), after) for a in range(len(REGIONS)) for b in range(a + 1, len(REGIONS)))
    assert len(after.landmarks) == LANDMARKS
    assert found(after.landmarks, after) >= best - after.trust[len(rows) :].sum() - 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 1_000))
def test_every_network_is_believed_more_than_not_at_all_and_none_more_than_whole(
    count: int, regions: int, seed: int
) -> None:
    rows = np.random.default_rng(seed).choice([0.1, 20.0, 6_000.0], (count, regions))
    trust = trust_in(rows)
    assert trust.shape == (count,)
    assert ((trust >= TRUST_MIN) & (trust <= 1.0)).all()
    assert count >= JUDGES_MIN or (trust == 1.0).all()


def number(address: str) -> int:
    network = network_from(address, local=True)
    assert network is not None
    return network.number


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.1", "203.0.7.1", True),
        ("203.0.113.1", "203.1.113.1", False),
        ("2001:db8:1::1", "2001:db8:ffff::1", True),
        ("2001:db8:1::1", "2001:db9:1::1", False),
        ("32.1.13.184", "2001:db8::1", False),
    ],
)
def test_networks_that_were_given_out_together(one: str, other: str, same: bool) -> None:
    assert (allocation_of(number(one)) == allocation_of(number(other))) is same


def test_a_flood_of_one_allocations_networks_pushes_nobody_else_out() -> None:
    panel = Panel()
    honest = [number(f"198.{i}.7.1") for i in range(60)]
    for network in honest:
        panel.learn(network, "eu", NOW, 20.0)
    for i in range(2 * LOOKED_AT_MAX):
        panel.learn(number(f"2001:db8:{i:x}::1"), "eu", NOW, 6_000.0)
    assert all(panel.recall(network, NOW) for network in honest)
    assert len(panel) == len(honest) + OF_ONE_ALLOCATION_MAX
    assert panel.newest()[0] == number(f"2001:db8:{2 * LOOKED_AT_MAX - 1:x}::1")


def test_places_are_counted_anew_where_many_networks_were_forgotten() -> None:
    panel = Panel(networks_max=100)
    for i in range(1_000):
        panel.learn(number(f"10.{i % 40}.{i // 40}.1"), "eu", NOW, 20.0)
        assert len(panel) <= 100
        kept = [allocation_of(n) for n in panel.newest()]
        assert max(kept.count(a) for a in set(kept)) <= OF_ONE_ALLOCATION_MAX
        assert sum(len(p) for p in panel._places.values()) == len(panel)
