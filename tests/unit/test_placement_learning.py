"""What may be learned of a network, and what lies about it change."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement import learning as module
from app.placement.claims import KEPT_S, Claim, Claims
from app.placement.countries import COORDINATES, whereabouts
from app.placement.history import window_of
from app.placement.learning import LEARNED_AT_ONCE, Learning, drawn_edges
from app.placement.networks import MaxMindAtlas, Whereabouts, network_from, number_of, wider_of
from app.placement.witness import KEPT, Value, Witness
from regions.wire.measuring import Leg, Measured, Mesh, Witnessed
from tests.support.mmdb import write_mmdb

NOW_S = 1_800_000_000.0
NET = "203.0.113.0/24"


class Clock:
    """Stands still."""

    def __init__(self) -> None:
        self.at = datetime.fromtimestamp(NOW_S, UTC)

    def now(self) -> datetime:
        return self.at

    def now_ms(self) -> int:
        return int(self.at.timestamp() * 1000)

    def monotonic_s(self) -> float:
        return self.at.timestamp()


def fleet() -> Fleet:
    regions = {
        r: RegionState(id=r, jurisdiction="us", admin_state="active", health="healthy") for r in ("a", "b")
    }
    edges = tuple(
        EdgeState(
            id=UUID(int=i), region=r, name=f"e{i}", incarnation=UUID(int=1), media_url=f"ws://{i}", http_url="http://x",
            capacity_calls=10, calls=0, health="healthy",
        )
        for i, r in enumerate(("a", "a", "b"))
    )  # fmt: skip
    return Fleet(regions=regions, edges=edges)


def learning() -> Learning:
    return Learning(fleet, Clock())


def heard(
    learns: Learning, rtt_ms: float, *, network: str = NET, region: str = "a", samples: int = 5
) -> None:
    learns.heard(
        region, Measured(callers=[Witnessed(network=network, rtt_ms=rtt_ms, jitter_ms=1.0, samples=samples)])
    )
    learns._learn(learns._witness.take(1_000))


def test_what_an_edge_witnessed_is_known_of_the_whole_network() -> None:
    learns = learning()
    heard(learns, 42.0)
    known = learns.known(learns.network("203.0.113.77"), {})
    assert known.history == {"a": (42.0,)}
    assert learns.priors(known)["a"].source == "history"
    assert not learns.known(learns.network("203.0.114.77"), {}).history


@pytest.mark.parametrize("rtt_ms", [0.0, -5.0, float("inf"), float("nan"), 1e9])
def test_what_is_no_round_trip_is_not_learned(rtt_ms: float) -> None:
    learns = learning()
    heard(learns, rtt_ms)
    assert len(learns.history) == 0


@pytest.mark.parametrize(
    "network", ["", "x", "203.0.113.7/24", "203.0.113.0/16", "10.0.0.0", "203.0.113.0/24/1"]
)
def test_what_is_no_network_is_not_learned(network: str) -> None:
    learns = learning()
    heard(learns, 10.0, network=network)
    assert len(learns.history) == 0


def test_some_slow_reports_of_one_caller_do_not_outweigh_its_neighbours() -> None:
    learns = learning()
    for rtt_ms in (30.0, 900.0, 31.0, 900.0, 32.0, 900.0, 30.0):
        heard(learns, rtt_ms)
    assert learns.known(learns.network("203.0.113.1"), {}).history["a"][0] <= 32.0


@given(st.lists(st.floats(0.1, 5_000), min_size=1, max_size=40))
def test_the_value_of_a_window_is_one_that_was_witnessed(reports: list[float]) -> None:
    witness = Witness()
    for rtt_ms in reports:
        witness.report(1, "a", rtt_ms, NOW_S)
    (value,) = witness.take(10)
    assert value.rtt_ms in reports
    assert value.reports == len(reports)
    assert witness.take(10) == []
    if len(reports) <= KEPT:
        assert sum(r <= value.rtt_ms for r in reports) >= 0.4 * len(reports)


def test_what_was_not_stored_is_taken_again() -> None:
    witness = Witness()
    witness.report(1, "a", 10.0, NOW_S)
    values = witness.take(10)
    witness.put_back(values)
    assert witness.take(10) == values
    witness.report(1, "a", 10.0, NOW_S + 3_600)
    witness.put_back(values)  # its window is over
    assert len(witness.take(10)) == 1


def test_claims_hold_for_their_own_project_and_for_ten_minutes() -> None:
    claims, now = Claims(), datetime.fromtimestamp(NOW_S, UTC)
    mine, other = UUID(int=1), UUID(int=2)
    claims.learn(mine, 7, [Claim("a", 1.0, 0.0, 0.0, now)])
    claims.learn(
        mine, 7, [Claim("a", 99.0, 0.0, 0.0, now - timedelta(seconds=5))]
    )  # older than what is known
    assert [c.rtt_ms for c in claims.recall(mine, 7, now)] == [1.0]
    assert claims.recall(other, 7, now) == []
    assert claims.recall(mine, 8, now) == []
    assert claims.recall(mine, 7, now + timedelta(seconds=KEPT_S + 1)) == []


def test_a_project_that_reports_of_too_many_networks_forgets_its_own_and_nobody_elses() -> None:
    claims, now = Claims(networks_max=100), datetime.fromtimestamp(NOW_S, UTC)
    mine, flooding = UUID(int=1), UUID(int=2)
    for network in range(30):
        claims.learn(mine, network, [Claim("a", 1.0, 0.0, 0.0, now)])
    for network in range(1_000):
        claims.learn(flooding, network, [Claim("a", 2.0, 0.0, 0.0, now)])
        assert len(claims) <= 100
    assert all(claims.recall(mine, network, now) for network in range(30))
    assert claims.recall(flooding, 999, now) and not claims.recall(flooding, 0, now)
    for other in range(3, 300):
        claims.learn(UUID(int=other), 1, [Claim("a", 3.0, 0.0, 0.0, now)])
    assert len(claims) == 100 and claims.recall(UUID(int=299), 1, now)


def test_the_mesh_and_the_way_to_backends() -> None:
    learns = learning()
    learns.heard(
        "a",
        Measured(
            mesh=[Mesh(region="b", rtt_ms=80.0, jitter_ms=2.0, loss=0.0), Mesh(region="gone", rtt_ms=1, jitter_ms=0, loss=0)],
            backends=[Leg(host="bot.example:443", rtt_ms=12.0, jitter_ms=1, failures=0),
                      Leg(host="dead.example:443", rtt_ms=0, jitter_ms=0, failures=3)],
        ),
    )  # fmt: skip
    assert [(w.region, w.target, w.rtt_ms) for w in learns.mesh()] == [("a", "b", 80.0)]
    assert learns.backend_ms("bot.example:443") == {"a": 12.0}
    assert learns.backend_ms("dead.example:443") == {}
    learns.heard("a", Measured(mesh=[Mesh(region="b", rtt_ms=-1.0, jitter_ms=2.0, loss=0.0)]))
    assert learns.mesh()[0].rtt_ms == 80.0


def test_one_edge_of_each_region_measures_the_others() -> None:
    edges = list(fleet().edges)
    drawn = {e.id: drawn_edges(e.id, edges) for e in edges}
    assert sum(d is not None for e, d in drawn.items() if e.int < 2) == 1
    assert [e.region for e in drawn[UUID(int=2)] or []] == ["a"]
    assert drawn_edges(UUID(int=99), edges) is None


def test_networks_of_addresses() -> None:
    four, six = network_from("203.0.113.77"), network_from("2001:db9:7:8::1", local=True)
    assert four is not None
    assert four.text == NET
    assert six is not None
    assert six.text == "2001:db9:7::/48"
    assert number_of(NET) == four.number
    assert network_from("::ffff:203.0.113.9") == four
    assert network_from("127.0.0.1") is None
    assert network_from("192.168.1.1") is None
    assert network_from("not an address") is None
    assert number_of("203.0.113.7/24") is None


def test_a_system_and_a_metro_are_wider_than_a_network() -> None:
    assert wider_of(Whereabouts()) == ()
    assert len(wider_of(Whereabouts(asn=64_500))) == 1
    metro, system = wider_of(Whereabouts(asn=64_500, metro="807"))
    assert system == wider_of(Whereabouts(asn=64_500))[0]
    assert metro != wider_of(Whereabouts(asn=64_500, metro="808"))[0]


BERLIN = {"city": {"geoname_id": 2950159}, "location": {"latitude": 52.5, "longitude": 13.4}}


def test_what_an_operators_file_says_is_learned_of_and_is_the_last_resort(tmp_path: Path) -> None:
    systems = write_mmdb(
        tmp_path / "asn.mmdb",
        {
            "203.0.113.0/24": {"autonomous_system_number": 64_500},
            "198.51.100.0/24": {"autonomous_system_number": 64_500},
            "192.0.2.0/24": {"autonomous_system_number": 64_501},
        },
    )
    cities = write_mmdb(
        tmp_path / "city.mmdb", {"203.0.113.0/24": BERLIN, "198.51.100.0/24": BERLIN, "192.0.2.0/25": BERLIN}
    )
    atlas = MaxMindAtlas(systems, cities)
    learns = Learning(fleet, Clock(), atlas=atlas)
    heard(learns, 21.0, network="203.0.113.0/24")
    same, other = learns.network("198.51.100.9"), learns.network("192.0.2.9")
    assert same is not None and other is not None
    assert (len(same.wider), len(other.wider), same.at) == (2, 2, (52.5, 13.4))
    assert learns.known(same, {}).wider == {"a": (21.0,)}
    assert learns.priors(learns.known(same, {}))["a"].source == "wider"
    # of another system in the same city nothing is known but where it is
    assert learns.known(other, {}).wider == {} and learns.known(other, {}).at == (52.5, 13.4)
    assert learns.priors(learns.known(other, {}))["a"].source == "geography"
    nowhere = learns.network("198.18.0.9")
    assert nowhere is not None and (nowhere.wider, nowhere.at) == ((), None)
    atlas.close()


def test_nonsense_in_an_operators_file_says_nothing_and_harms_nobody(tmp_path: Path) -> None:
    odd = write_mmdb(
        tmp_path / "odd.mmdb",
        {
            "203.0.113.0/24": {
                "autonomous_system_number": "64500",
                "location": {"latitude": 1000.0, "longitude": 13.4},
            },
            "198.51.100.0/24": "no map",
            "192.0.2.0/24": {"autonomous_system_number": 1 << 40, "location": "Berlin", "city": ["Berlin"]},
        },
    )
    atlas = MaxMindAtlas(odd)
    for address in ("203.0.113.7", "198.51.100.7", "192.0.2.7", "2001:db9::1"):
        found = network_from(address, atlas)
        assert found is not None and (found.wider, found.at) == ((), None), address


def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    bad = tmp_path / "geo.mmdb"
    bad.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"geo\.mmdb"):
        MaxMindAtlas(bad)


def test_a_number_says_its_country() -> None:
    assert whereabouts("+4930123456") == COORDINATES["DE"]
    assert whereabouts("tel:+12125550100") == COORDINATES["US"]
    assert whereabouts("sip:me@example.com") is None
    assert whereabouts("+870773111632") is None
    assert whereabouts(None) is None
    assert whereabouts("nonsense") is None
    assert all(-90 <= lat <= 90 and -180 <= lon <= 180 for lat, lon in COORDINATES.values())


async def test_a_page_is_taken_in_a_few_at_a_time() -> None:
    """What a request waits for is one turn of the loop."""
    learns, turns = learning(), 0
    window = window_of(NOW_S)
    taking = asyncio.create_task(
        learns._take_in([Value(n, "a", window, 20.0, 1) for n in range(4 * LEARNED_AT_ONCE)])
    )
    while not taking.done():
        known = len(learns.history)
        await asyncio.sleep(0)
        assert len(learns.history) - known <= LEARNED_AT_ONCE
        turns += 1
    assert len(learns.history) == 4 * LEARNED_AT_ONCE and turns >= 4


@pytest.mark.parametrize("networks", [0, 3])
async def test_without_a_region_there_are_no_profiles_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, networks: int
) -> None:
    """As before an operator has made the first one: an instance whose worker has died is not ready."""
    monkeypatch.setattr(module, "FLUSH_S", 0.0)
    clock, looks = Clock(), 0

    def empty() -> Fleet:
        nonlocal looks
        looks += 1
        clock.at += timedelta(seconds=module.PROFILES_EVERY_S)
        return Fleet(regions={}, edges=())

    learns, stop = Learning(empty, clock), asyncio.Event()
    for n in range(networks):
        learns.panel.learn(n, "gone", window_of(NOW_S), 20.0)
    working = asyncio.create_task(learns.profiles_worker(stop))
    async with asyncio.timeout(20):
        while looks < 20 and not working.done():
            await asyncio.sleep(0)
    stop.set()
    await working
    assert not learns.profiles.useful
