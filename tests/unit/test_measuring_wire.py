"""What a network is called, and who is drawn to measure whom."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import SystemClock
from app.fleet.frames import read_frame
from app.fleet.view import EdgeState, Fleet
from app.placement.learning import Learning, drawn_edges
from regions.wire.measuring import (
    COUNT_MAX,
    HOST_CHARS_MAX,
    LEGS_MAX,
    MESH_MAX,
    REGION_CHARS_MAX,
    RTT_MS_MAX,
    WITNESSED_MAX,
    Leg,
    Measured,
    Mesh,
    Witnessed,
    is_network,
    network_of,
)
from regions.wire.uplink import FRAME_BYTES_MAX


@given(st.ip_addresses())
def test_every_address_lies_in_its_network_and_shares_it_with_its_neighbours(
    address: IPv4Address | IPv6Address,
) -> None:
    named = network_of(str(address))
    assert named is not None
    network = ip_network(named)
    plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
    assert plain in network
    assert network.prefixlen == (24 if network.version == 4 else 48)
    assert {network_of(str(network[0])), network_of(str(network[-1]))} == {named}
    assert is_network(named)


@given(st.ip_addresses(v=4))
def test_an_address_counts_as_one_however_it_comes(address: IPv4Address) -> None:
    assert network_of(f"::ffff:{address}") == network_of(str(address))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"), ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:DB8:1:ffff::9", "2001:db8:1::/48"), ("::1", "::/48"), ("127.0.0.1", "127.0.0.0/24"),
        ("fe80::1%eth0", None), ("", None), ("localhost", None), ("203.0.113.0/24", None), ("1", None), ("203.0.113.077", None),
        ("203.0.113.77:443", None), ("[::1]", None), ("x" * 100_000, None),
    ],
)  # fmt: skip
def test_what_a_network_is_called(address: str, network: str | None) -> None:
    assert network_of(address) == network


@given(st.text())
def test_garbage_is_no_address_and_no_network(text: str) -> None:
    network = network_of(text)
    assert network is None or ip_address(text)
    assert not is_network(text) or ip_network(text)


def test_the_fullest_report_fits_into_a_frame() -> None:
    report = Measured(
        callers=[
            Witnessed(network=f"ffff:ffff:{n + 1:x}::/48", rtt_ms=59_999.123456, jitter_ms=59_999.123456, samples=COUNT_MAX)
            for n in range(WITNESSED_MAX)
        ],
        backends=[
            Leg(host="x" * HOST_CHARS_MAX, rtt_ms=RTT_MS_MAX, jitter_ms=1.23456789, failures=COUNT_MAX)
            for _ in range(LEGS_MAX)
        ],
        mesh=[
            Mesh(region="r" * REGION_CHARS_MAX, rtt_ms=1.23456789, jitter_ms=1.23456789, loss=0.123456789)
            for _ in range(MESH_MAX)
        ],
    )  # fmt: skip
    text = msgspec.json.encode(report).decode()
    assert len(text) < FRAME_BYTES_MAX / 4
    assert read_frame(text) == report
    assert read_frame('{"type":"measured"}') == Measured()


# ------------------------------------------------------------------------------------------------ who measures whom


def edge(number: int, region: str, health: str = "healthy", *, stopped: bool = False) -> EdgeState:
    return EdgeState(
        id=UUID(int=number), region=region, name=f"e{number}", incarnation=UUID(int=1), media_url=f"ws://{number}", http_url="",
        capacity_calls=1, calls=0, health=health, stopped=stopped,
    )  # fmt: skip


FLEET = [edge(n, f"r{n % 5}") for n in range(1, 41)]


def test_one_edge_of_each_region_measures_one_of_every_other() -> None:
    drawn = {e.id: d for e in FLEET if (d := drawn_edges(e.id, FLEET)) is not None}
    own = {e.id: e.region for e in FLEET}
    assert sorted(own[i] for i in drawn) == [f"r{n}" for n in range(5)]
    for observer, targets in drawn.items():
        assert [t.region for t in targets] == sorted({e.region for e in FLEET} - {own[observer]})


def test_who_is_down_neither_measures_nor_is_measured() -> None:
    drawn = {e.id for e in FLEET if drawn_edges(e.id, FLEET) is not None}
    sick = [
        edge(e.id.int, e.region, "down", stopped=e.id.int % 2 == 0) if e.id in drawn else e for e in FLEET
    ]
    now = {e.id: d for e in sick if (d := drawn_edges(e.id, sick)) is not None}
    assert len(now) == 5
    assert not drawn & set(now)
    assert not drawn & {t.id for targets in now.values() for t in targets}


def test_every_edge_is_asked_for_what_it_witnesses_also_one_that_is_not_seen_yet() -> None:
    learning = Learning(lambda: Fleet(edges=tuple(FLEET)), SystemClock())
    asked = [learning.measure_for(e.id) for e in [*FLEET, edge(99, "r1")]]
    assert all(a is not None and a.every_s == 30.0 for a in asked)
    assert sum(bool(a and a.mesh) for a in asked) == 5
