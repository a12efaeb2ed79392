"""What a call's line was like: the estimate, what counts as lost and as jitter, and when it is written down."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions.callers.rtp_counts import RtpCounts
from regions.edge.line import EVERY_MS, FIRST_MS, CallerLine, CallLine, Carried
from regions.media.quality import Arrivals, Heard, Opinions, Report, mos


@pytest.mark.parametrize(
    ("loss", "rtt_ms", "concealed", "expected"),
    [
        (0.0, 0, True, 4.4),  # G.107's own for a line without impairments: R 93.2 is 4.41
        (0.0, 600, True, 3.59),  # G.114: 300 ms one way is where it is noticed
        (0.02, 40, True, 4.21),
        (0.02, 40, False, 3.2),
        (0.3, 40, False, 1.02),
        (1.0, 5_000, False, 1.0),
    ],
)
def test_the_estimate_follows_the_e_model(loss: float, rtt_ms: int, concealed: bool, expected: float) -> None:
    assert mos(loss=loss, jitter_ms=0, rtt_ms=rtt_ms, concealed=concealed) == pytest.approx(
        expected, abs=0.02
    )


@given(st.floats(0, 1), st.floats(0, 2_000), st.floats(0, 5_000), st.booleans())
def test_a_worse_line_is_never_the_better_one(
    loss: float, jitter_ms: float, rtt_ms: float, concealed: bool
) -> None:
    found = mos(loss=loss, jitter_ms=jitter_ms, rtt_ms=rtt_ms, concealed=concealed)
    assert 1.0 <= found <= 4.5
    assert found >= mos(
        loss=min(1, loss + 0.05), jitter_ms=jitter_ms + 5, rtt_ms=rtt_ms + 50, concealed=concealed
    )


def test_what_is_missing_is_lost_and_what_is_left_out_is_not() -> None:
    arrivals = Arrivals()
    for i, sequence in enumerate([65_534, 65_535, 0, 3, 4]):
        assert arrivals.came(i * 20.0, sequence, 20) == 0
    assert (arrivals.heard().frames, arrivals.heard().lost) == (7, 2), "1 and 2 have not come"
    arrivals.came(100.0, 5, 20, quiet=True)
    assert arrivals.came(520.0, 26, 20) == 20
    assert (arrivals.heard().frames, arrivals.heard().lost) == (9, 2), "silence is no loss"
    assert arrivals.quiet_frames == 21
    arrivals.came(540.0, 9, 20)
    assert arrivals.heard().lost == 2, "a sequence that begins anew has lost nothing"


def test_jitter_is_that_of_the_rfc() -> None:
    steady, uneven = Arrivals(), Arrivals()
    for i in range(500):
        steady.came(i * 20.0, i, 20)
        uneven.came(i * 20.0 + (10 if i % 2 else 0), i, 20)
    assert steady.heard().jitter_ms == 0
    assert uneven.heard().jitter_ms == pytest.approx(10, abs=0.2)
    uneven.came(20_000.0, 500, 20)
    assert uneven.heard().jitter_ms == pytest.approx(10, abs=0.2), "it had nothing to say for a while"


class Line:
    """A connection that counts for itself."""

    def __init__(self, report: Report | None = None) -> None:
        self.carried, self._report = Carried(), report

    def report(self) -> Report | None:
        return self._report


def test_it_is_told_after_ten_seconds_then_once_a_minute_and_over_all_connections() -> None:
    caller, agent = CallerLine(), Carried()
    backend = SimpleNamespace(carried=agent, connection=None)
    first, second = Line(), Line()
    first.carried.in_bytes, agent.out_bytes = 100, 7
    caller.connected(first)
    line = CallLine(caller, lambda: 1, lambda: 30, backend, 0)
    told: list[tuple[int, dict[str, Any]]] = []
    for i in range(FIRST_MS * 12 // 20):
        now = (i + 1) * 20
        if i == 300:
            second.carried.in_bytes = 50
            caller.connected(second)
        if i == 100:
            backend.connection = object()
        if i % 10:  # every tenth frame does not come
            caller.arrivals.came(float(now), i & 0xFFFF, 20)
        told += [(now, data) for _, data in line.turn(now, last=False)]
    assert [at for at, _ in told] == [FIRST_MS, FIRST_MS + EVERY_MS]
    quality, usage = told[0][1]["quality"], told[0][1]["usage"]
    assert (usage["caller_in_bytes"], usage["agent_out_bytes"], quality["rtt_ms"]) == (150, 7, 30)
    assert (usage["caller_ms"], usage["agent_ms"]) == (10_000, 8_000)
    assert quality["up"]["loss"] == pytest.approx(0.1, abs=0.01)
    assert quality["mos_min"] <= quality["mos"] < 2
    assert [type_ for type_, _ in line.turn(130_000, last=True)] == ["call.quality"]
    assert line.turn(131_000, last=False) == [], "it was told a moment ago"


def test_the_worst_ten_seconds_are_kept() -> None:
    opinions, sent, lost = Opinions(0, concealed=True), 0, 0
    for second in range(1, 61):
        sent, lost = sent + 50, lost + (25 if 20 < second <= 30 else 0)
        report = Report(up=Heard(frames=sent, lost=lost), down=Heard(), rtt_ms=20.0)
        opinions.look(second * 1_000, report)
    assert opinions.worst is not None
    assert opinions.worst < 2 < 3 < opinions.mos(report)


def stats(**of: dict[str, Any]) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(type=name.replace("_", "-"), kind="audio", **values) for name, values in of.items()
    ]


def test_packets_are_read_as_the_library_names_them() -> None:
    counts = RtpCounts()
    counts.look([])
    assert counts.report == Report(up=Heard(), down=Heard())
    for packets, at_ms in ((50, 1_000.0), (60, 4_000.0)):
        counts.look(
            stats(
                inbound_rtp={
                    "packets_received": packets, "packets_lost": 5, "jitter": 0.004, "bytes_received": packets * 60,
                    "header_bytes_received": packets * 20, "last_packet_received_timestamp": at_ms,
                },
                outbound_rtp={"packets_sent": 100, "bytes_sent": 6_000, "header_bytes_sent": 2_000},
                remote_inbound_rtp={"packets_lost": 2, "jitter": 0.001, "round_trip_time": 0.05},
                candidate_pair={"nominated": True, "current_round_trip_time": 0.04},
            )
        )  # fmt: skip
    report = counts.report
    assert (report.up, report.rtt_ms) == (Heard(frames=65, lost=5, jitter_ms=4.0), 50.0)
    assert report.down == Heard(frames=100, lost=2, jitter_ms=1.0)
    assert (counts.in_bytes, counts.out_bytes) == (4_800, 8_000)
    # 3 s later ten packets more of 150, of 80 bytes each; and of 3 s of ours 50 were not sent
    assert counts.saved_bytes(3_000) == 140 * 80 + 50 * 80
