"""What is believed of round trips: history by network, networks alike, places on the map, and the advice that follows."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.placement.advice import PROBES_MAX, next_probes
from app.placement.belief import Known, believe, far_ms, kilometres, priors_of
from app.placement.history import KEPT_WINDOWS_MAX, REGIONS_KEPT, WINDOWS_KEPT, History, window_of
from app.placement.likeness import LAST_MILE_BELIEVED, LAST_MILE_SCALE_MS, SCALE_MS, SCALE_SHARE, TAIL
from app.placement.profiles import MULTIPLIED_MAX, NONE, PLAUSIBLE_MS, profiles_of
from app.placement.scenarios import NEAR_MS, Scenarios

REGIONS = tuple(f"r{i:02}" for i in range(8))
NOW = 500_000


def world(count: int = 80, seed: int = 1) -> np.ndarray:
    """Round trips from places on a line to regions on it: whoever is near one region is far from others."""
    rng = np.random.default_rng(seed)
    places, sites = rng.uniform(0, 200, count), np.linspace(0, 200, len(REGIONS))
    rows: np.ndarray = np.abs(places[:, None] - sites) + 5 + rng.uniform(0, 3, (count, len(REGIONS)))
    return rows


def test_a_network_is_remembered_by_window_and_the_newest_come_first() -> None:
    history = History()
    for i, rtt_ms in enumerate((30.0, 31.0, 32.0, 33.0, 34.0, 35.0)):
        history.learn(7, "eu", NOW + i, rtt_ms)
    assert history.recall(7, NOW + 5) == {"eu": (35.0, 34.0, 33.0, 32.0, 31.0)}
    history.learn(7, "eu", NOW + 5, 20.0)  # the same window once more
    assert history.recall(7, NOW + 5)["eu"][:2] == (20.0, 34.0)
    history.learn(7, "eu", NOW + 2, 1.0)  # an old one changes nothing
    assert history.recall(7, NOW + 5)["eu"][0] == 20.0


def test_a_network_keeps_its_nearest_regions() -> None:
    history = History()
    for i in range(REGIONS_KEPT + 3):
        history.learn(1, f"r{i}", NOW, 100.0 - i)
    assert set(history.recall(1, NOW)) == {f"r{i}" for i in range(3, REGIONS_KEPT + 3)}


def test_what_is_too_old_is_forgotten_and_learned_anew() -> None:
    history = History()
    history.learn(1, "eu", NOW, 40.0)
    later = NOW + KEPT_WINDOWS_MAX + 1
    assert history.recall(1, later) == {}
    history.learn(1, "eu", later, 50.0)
    assert history.recall(1, later) == {"eu": (50.0,)}


def test_the_networks_learned_of_longest_ago_go_first() -> None:
    history = History(networks_max=100)
    for network in range(120):
        history.learn(network, "eu", NOW, 10.0)
        history.learn(0, "eu", NOW, 10.0)
    assert len(history) <= 100
    assert history.recall(0, NOW)
    assert not history.recall(1, NOW)
    assert history.recall(119, NOW)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 9), st.floats(0.01, 9_000)),
        max_size=60,
    )
)
def test_whatever_is_learned_a_slot_holds_what_was_said_of_it(
    said: list[tuple[int, int, int, float]],
) -> None:
    history = History()
    for network, region, window, rtt_ms in said:
        history.learn(network, f"r{region}", NOW + window, rtt_ms)
    for network in range(4):
        for region, values in history.recall(network, NOW + 10).items():
            assert 1 <= len(values) <= WINDOWS_KEPT
            told = [min(r, 6_000.0) for n, g, _, r in said if n == network and f"r{g}" == region]
            assert all(any(math.isclose(v, t, abs_tol=0.11) for t in told) for v in values)


def test_history_beats_what_the_map_says() -> None:
    priors = priors_of(
        REGIONS, Known(history={"r03": (20.0, 22.0)}, at=(0.0, 0.0)), NONE, lambda region, at: 5_000.0
    )
    assert priors["r03"].source == "history"
    assert priors["r03"].rtt_ms < 50
    assert priors["r00"].source == "geography"
    assert priors["r00"].rtt_ms == pytest.approx(far_ms(5_000.0))
    assert priors["r03"].confidence > priors["r00"].confidence


def test_a_stranger_is_taken_to_look_like_those_it_looks_like() -> None:
    rows = world()
    profiles = profiles_of(REGIONS, rows[1:])
    me = rows[0]
    measured = {REGIONS[c]: float(me[c]) for c in profiles.landmarks}
    priors = priors_of(REGIONS, Known(measured=measured), profiles)
    guess = min(priors, key=lambda r: priors[r].rtt_ms)
    assert me[REGIONS.index(guess)] <= me.min() + 10
    assert priors[guess].source == "alike"


def test_gaps_in_what_networks_know_are_filled_by_their_like() -> None:
    rows = world()
    holes = rows.copy()
    holes[np.random.default_rng(3).random(rows.shape) < 0.4] = np.nan
    holes[:, 0] = rows[:, 0]
    holes[:, 7] = rows[:, 7]
    filled = profiles_of(REGIONS, holes).rtt_ms
    assert np.isfinite(filled).all()
    assert np.median(np.abs(filled - rows[: len(filled)])) < 10


def test_the_mean_of_the_scenarios_is_the_prior() -> None:
    profiles = profiles_of(REGIONS, world())
    for known in (Known(history={"r02": (10.0, 14.0, 90.0)}), Known(measured={"r01": 30.0, "r05": 80.0})):
        mean = believe(REGIONS, known, profiles).scenarios.mean()
        priors = priors_of(REGIONS, known, profiles)
        for i, region in enumerate(REGIONS):
            if region not in known.measured:
                assert mean[i] == pytest.approx(priors[region].rtt_ms, rel=0.1, abs=6)


def likely(row: list[float], seen: dict[int, float]) -> tuple[float, float]:
    """(how likely a stranger is like one network, how much farther it then is), word for word as `app.placement.likeness` says it."""
    apart = [ms - row[c] for c, ms in seen.items()]
    last_mile = LAST_MILE_BELIEVED * statistics.median(apart)
    odds = (1 + (last_mile / LAST_MILE_SCALE_MS) ** 2) ** -TAIL
    for (c, ms), off in zip(seen.items(), apart, strict=True):
        odds *= (1 + ((off - last_mile) / (SCALE_MS + SCALE_SHARE * min(ms, row[c]))) ** 2) ** -TAIL
    return odds, last_mile


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, MULTIPLIED_MAX, MULTIPLIED_MAX + 1])
def test_however_many_regions_are_known_what_is_expected_is_the_kernel_regression(count: int) -> None:
    rng = np.random.default_rng(count)
    regions = tuple(f"r{i:02}" for i in range(MULTIPLIED_MAX + 4))
    profiles = profiles_of(regions, rng.gamma(2.0, 30.0, (60, len(regions))))
    seen = {c: float(rng.uniform(1, 200)) for c in rng.permutation(len(regions))[:count].tolist()}
    guesses = [likely(row, seen) for row in profiles.rtt_ms.tolist()]
    weights = [odds * trust for (odds, _), trust in zip(guesses, profiles.trust.tolist(), strict=True)]
    for column, expected in enumerate(profiles.expected(seen).tolist()):
        rows = profiles.rtt_ms[:, column].tolist()
        said = [w * (v + last_mile) for w, v, (_, last_mile) in zip(weights, rows, guesses, strict=True)]
        assert expected == pytest.approx(max(PLAUSIBLE_MS, sum(said) / sum(weights)))


def test_evidence_as_far_off_as_it_can_be_still_leaves_a_figure() -> None:
    regions = tuple(f"r{i:02}" for i in range(MULTIPLIED_MAX))
    profiles = profiles_of(regions, np.full((60, len(regions)), 0.1))
    seen = {c: 0.1 if c % 2 else 6_000.0 for c in range(MULTIPLIED_MAX)}
    assert np.isfinite(profiles.expected(seen)).all()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_measured_next_is_what_most_likely_holds_the_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, weight = rng.gamma(2.0, 40.0, (50, len(REGIONS))), rng.dirichlet(np.ones(50))
    measured = {0: 60.0} if seed % 2 else {}
    seen = [{**dict(enumerate(row)), **measured} for row in rows.tolist()]

    def found(columns: list[int]) -> float:
        """How likely the nearest of these is as near as any, by counting."""
        near = [min(row[c] for c in columns) <= min(row.values()) + NEAR_MS for row in seen]
        return sum(w for w, hit in zip(weight.tolist(), near, strict=True) if hit)

    chosen = [*measured, *Scenarios(rows, weight).next_probes(measured, 3)]
    for i in range(len(measured), len(chosen)):
        best = max(found([*chosen[:i], c]) for c in range(len(REGIONS)))
        # of those that are as likely, the one that is missed by less
        assert found(chosen[: i + 1]) >= best - 0.02


def test_a_stranger_measures_two_landmarks_and_then_the_two_most_promising() -> None:
    rows = world()
    profiles = profiles_of(REGIONS, rows[1:])
    first = next_probes(REGIONS, REGIONS, Known(), profiles)
    assert first == [REGIONS[c] for c in profiles.landmarks]
    measured = {r: float(rows[0][REGIONS.index(r)]) for r in first}
    second = next_probes(REGIONS, REGIONS, Known(measured=measured), profiles)
    assert len(second) == 2
    measured |= {r: float(rows[0][REGIONS.index(r)]) for r in second}
    assert len(measured) == PROBES_MAX
    assert min(measured.values()) <= rows[0].min() + 10
    assert next_probes(REGIONS, REGIONS, Known(measured=measured), profiles) == []


def test_a_region_that_was_seen_in_one_bad_hour_is_measured_again_and_after_several_no_more() -> None:
    profiles = profiles_of(REGIONS, world())
    nearest = REGIONS[2]
    sites = np.linspace(0, 200, len(REGIONS))
    mine = dict(zip(REGIONS, (np.abs(sites - sites[2]) + 6.0).tolist(), strict=True))
    told = mine | {nearest: mine[nearest] + 150.0}
    once = believe(REGIONS, Known(history={r: (v,) for r, v in told.items()}), profiles)
    assert nearest in once.next_probes(2)
    often = believe(REGIONS, Known(history={r: (v,) * 4 for r, v in told.items()}), profiles)
    assert nearest not in often.next_probes(2)


def test_a_network_that_was_seen_measures_the_two_that_were_best_and_no_more() -> None:
    history = {r: (float(20 + 10 * i),) * 3 for i, r in enumerate(REGIONS)}
    assert set(next_probes(REGIONS, REGIONS, Known(history=history), NONE)) == {"r00", "r01"}
    known = Known(history=history, measured={"r00": 20.0, "r01": 30.0})
    assert next_probes(REGIONS, REGIONS, known, NONE) == []


def test_advice_without_any_knowledge_is_to_measure_everything_once() -> None:
    assert next_probes(REGIONS, REGIONS, Known(), NONE) == list(REGIONS)
    assert next_probes(REGIONS, REGIONS, Known(measured={"r00": 5.0}), NONE) == []
    assert next_probes(REGIONS, ("r01", "r02"), Known(), NONE) == ["r01", "r02"]
    assert next_probes(REGIONS, (), Known(), NONE) == []


def test_advice_names_only_what_can_be_measured() -> None:
    profiles = profiles_of(REGIONS, world())
    for known in (Known(), Known(measured={"r03": 9.0}), Known(history={r: (5.0,) for r in REGIONS})):
        found = next_probes(REGIONS, ("r02", "r04", "r05", "r06", "r07"), known, profiles)
        assert set(found) <= {"r02", "r04", "r05", "r06", "r07"}
        assert found


def test_distances_on_the_globe() -> None:
    assert kilometres((51.5, -0.1), (40.7, -74.0)) == pytest.approx(5_570, rel=0.01)
    assert kilometres((0, 179.5), (0, -179.5)) == pytest.approx(111, rel=0.01)
    assert window_of(7_200.0) == 2
