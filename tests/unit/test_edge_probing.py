"""How much one network may probe, who it is behind a proxy, and what is kept of what an edge has measured."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions.edge.peer import peer_of
from regions.edge.probe_gate import WORDS, ProbeGate
from regions.edge.settings import EdgeSettings, SettingsError
from regions.edge.witnesses import NETWORKS_MAX, Trips, Witnesses
from regions.wire.measuring import LEGS_MAX, RTT_MS_MAX, WITNESSED_MAX, Mesh

# -------------------------------------------------------------------------------------------------------- the gate


def test_a_network_that_floods_is_stopped_and_the_others_are_not() -> None:
    gate = ProbeGate(messages_per_network_s=10, messages_s=40)
    flood = Counter(gate.message("a", i / 1000) for i in range(1_000))
    assert flood == {None: 10 + 9, "network_rate": 981}
    assert [gate.message("b", 1.0) for _ in range(10)] == [None] * 10
    assert gate.refused["network_rate"] == 981


def test_a_flood_from_everywhere_stops_at_the_limit_in_all() -> None:
    gate = ProbeGate(messages_per_network_s=10, messages_s=40)
    answers = Counter(gate.message(f"n{i}", 5.0) for i in range(1_000))
    assert answers == {None: 40, "edge_rate": 960}
    assert gate.message("late", 6.0) is None


def test_sockets_are_counted_per_network_and_in_all() -> None:
    gate = ProbeGate(sockets_per_network=3, sockets=5)
    assert [gate.open("a", 0.0) for _ in range(4)] == [None, None, None, "network_sockets"]
    assert [gate.open("b", 0.0) for _ in range(3)] == [None, None, "edge_sockets"]
    gate.closed("a")
    assert gate.sockets == 4
    assert gate.open("b", 0.0) is None


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("mmmo"), st.integers(0, 40), st.floats(0, 0.01)), max_size=300))
def test_the_table_is_bounded_and_forgets_no_open_socket(steps: list[tuple[str, int, float]]) -> None:
    gate = ProbeGate(sockets_per_network=2, sockets=8, networks=10)
    opened: list[str] = []
    now_s = 0.0
    for what, network, pause_s in steps:
        now_s += pause_s
        name = f"n{network}"
        if what == "m":
            gate.message(name, now_s)
        elif gate.open(name, now_s) is None:
            opened.append(name)
        if len(opened) > 6:
            gate.closed(opened.pop(0))
        assert len(gate) <= 10
        assert gate.sockets == len(opened) <= 8
    for name in opened:
        gate.closed(name)
    assert gate.sockets == 0


def test_a_clock_that_stands_still_gives_nothing_away() -> None:
    gate = ProbeGate(messages_per_network_s=5)
    assert Counter(gate.message("a", now_s) for now_s in [3.0] * 10 + [2.0] * 10) == {
        None: 5,
        "network_rate": 15,
    }


def test_every_reason_has_words_that_fit_into_a_close_frame_and_stands_in_the_metrics() -> None:
    gate = ProbeGate()
    gate.refuse("edge_rate")
    said = gate.exposition()
    for why, words in WORDS.items():
        assert len(words.encode()) <= 123
        assert f'voxplane_edge_probes_refused_total{{why="{why}"}} {int(why == "edge_rate")}\n' in said


# ------------------------------------------------------------------------------------------------- behind a proxy

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("address", "forwarded", "peer"),
    [
        ("198.51.100.1", None, "198.51.100.1"),
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("10.1.1.1", None, "10.1.1.1"),
        ("10.1.1.1", "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.1.1.1", "203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", "192.0.2.66, 203.0.113.9", "203.0.113.9"),
        ("10.1.1.1", "203.0.113.9, 10.2.2.2", "203.0.113.9"),
        ("2001:db8::1", "2001:dead::9,10.2.2.2", "2001:dead::9"),
        ("10.1.1.1", "10.3.3.3,10.2.2.2", "10.3.3.3"),
        ("10.1.1.1", "nonsense", "nonsense"),
        ("10.1.1.1", "1.1.1.1," * 500, "10.1.1.1"),
    ],
)
def test_only_what_trusted_proxies_have_written_counts(
    address: str, forwarded: str | None, peer: str
) -> None:
    assert peer_of(address, forwarded, PROXIES) == peer


def test_without_trusted_proxies_the_header_is_nobodys_word() -> None:
    assert peer_of("10.1.1.1", "203.0.113.9", ()) == "10.1.1.1"


def test_trusted_proxies_are_a_setting() -> None:
    env = {
        "VOXPLANE_REGION": "us-east", "VOXPLANE_EDGE_NAME": "e", "VOXPLANE_CONTROL_URLS": "http://127.0.0.1:1",
    }  # fmt: skip
    assert EdgeSettings.from_env(env).trusted_proxies == ()
    given = EdgeSettings.from_env(env | {"VOXPLANE_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1"})
    assert given.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("2001:db8::1/128"))
    for wrong in ("10.0.0.1/8", "proxy.example", "10.0.0.0/8;10.1.1.1"):
        with pytest.raises(SettingsError, match="VOXPLANE_TRUSTED_PROXIES"):
            EdgeSettings.from_env(env | {"VOXPLANE_TRUSTED_PROXIES": wrong})


# -------------------------------------------------------------------------------------------------- the witnesses


def trips(*samples_ms: float) -> Trips:
    one = Trips()
    for sample_ms in samples_ms:
        one.add(sample_ms)
    return one


def test_callers_of_a_network_are_told_as_one_and_their_difference_is_no_jitter() -> None:
    witnesses = Witnesses()
    witnesses.caller("a/24", trips(20.0, 22.0))
    witnesses.caller("a/24", trips(80.0, 84.0))
    witnesses.caller("b/24", trips(5.0))
    witnesses.caller(None, trips(1.0))
    witnesses.caller("c/24", trips())
    measured = witnesses.flush()
    assert measured is not None
    assert [(c.network, c.rtt_ms, c.jitter_ms, c.samples) for c in measured.callers] == [
        ("a/24", 20.0, 3.0, 4), ("b/24", 5.0, 0.0, 1),
    ]  # fmt: skip
    assert witnesses.flush() is None


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1e5)), min_size=1, max_size=200))
def test_the_least_is_told_and_every_sample_counted(samples: list[tuple[int, float]]) -> None:
    witnesses = Witnesses()
    for network, rtt_ms in samples:
        witnesses.caller(f"{network}/24", trips(rtt_ms))
    kept = [(n, ms) for n, ms in samples if ms < RTT_MS_MAX]
    measured = witnesses.flush()
    told = {c.network: (c.rtt_ms, c.samples) for c in measured.callers} if measured is not None else {}
    assert told == {
        f"{n}/24": (round(min(ms for m, ms in kept if m == n), 2), sum(m == n for m, _ in kept))
        for n, _ in kept
    }


def test_a_report_has_the_networks_with_the_most_samples_and_the_table_an_end() -> None:
    witnesses = Witnesses()
    for n in range(NETWORKS_MAX + 100):
        witnesses.caller(f"{n}", trips(*[1.0] * (2 if n % 4 == 0 else 1)))
    measured = witnesses.flush()
    assert measured is not None
    assert len(measured.callers) == WITNESSED_MAX
    assert all(c.samples == 2 for c in measured.callers)


def test_backends_are_told_with_their_failures_and_bounded() -> None:
    witnesses = Witnesses()
    for connect_ms in (12.0, 15.0, None, None):
        witnesses.backend("bot.example:443", connect_ms)
    witnesses.backend("gone.example:443", None)
    witnesses.backend("x" * 1_000, 1.0)
    for n in range(2 * LEGS_MAX):
        witnesses.backend(f"b{n}.example:443", 1.0)
    witnesses.region(Mesh(region="eu-west", rtt_ms=80.0, jitter_ms=1.0, loss=0.0))
    witnesses.region(Mesh(region="eu-west", rtt_ms=81.0, jitter_ms=1.0, loss=0.0))
    measured = witnesses.flush()
    assert measured is not None
    told = {b.host: (b.rtt_ms, b.jitter_ms, b.failures) for b in measured.backends}
    assert told["bot.example:443"] == (12.0, 3.0, 2)
    assert told["gone.example:443"] == (0.0, 0.0, 1)
    assert len(told) == LEGS_MAX
    assert [m.rtt_ms for m in measured.mesh] == [81.0]
