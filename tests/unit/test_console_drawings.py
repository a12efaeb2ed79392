"""What the console draws: plots of usage and the waterfall of a call, whatever the numbers are."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.calls.shapes import PlacementView
from app.calls.timeline_shapes import Timeline, TimelineDelivery, TimelineEntry, TimelineOwner
from app.console import drawing
from app.console.plots import HEIGHT, SERIES_MAX, stacked
from app.console.waterfall import waterfall
from app.local.places import PLACES

FIRST = date(2026, 11, 1)
BEGAN = datetime(2026, 11, 1, 12, tzinfo=UTC)
PLACED = PlacementView(region="a", edge="edge_1", url="ws://a", standbys=[], candidates=[], protection="none")

columns = st.dictionaries(st.text(max_size=8), st.floats(0, 1e12), max_size=14)


@given(st.dictionaries(st.integers(0, 40).map(lambda d: FIRST + timedelta(days=d)), columns, max_size=30))
def test_a_plot_stays_in_its_frame_and_loses_nothing(values: dict[date, dict[str, float]]) -> None:
    last = FIRST + timedelta(days=31)
    plot = stacked(values, FIRST, last, unit="min")
    assert len(plot.series) <= SERIES_MAX
    total = sum(v for day, column in values.items() if day < last for v in column.values())
    assert abs(sum(s for _, _, s in plot.series) - total) <= 1e-6 * max(total, 1)
    for piece in plot.pieces:
        assert piece.x >= 0 and piece.x + piece.width <= 100.01
        assert piece.y >= -0.01 and piece.y + piece.height <= HEIGHT + 0.51


def event(at_s: float, type_: str, **more: object) -> TimelineEntry:
    at = (BEGAN + timedelta(seconds=at_s)).isoformat()
    return TimelineEntry(kind="event", at=at, type=type_, **more)  # type: ignore[arg-type]


def owner(epoch: int, region: str, why: str) -> TimelineOwner:
    return TimelineOwner(epoch=epoch, edge=f"edge_{epoch}", region=region, why=why)


def made(entries: list[TimelineEntry], ended_s: float | None) -> Timeline:
    ended = (BEGAN + timedelta(seconds=ended_s)).isoformat() if ended_s is not None else None
    return Timeline(
        call_id="call_1", state="completed" if ended else "in_progress", created_at=BEGAN.isoformat(), answered_at=None,
        ended_at=ended, end_reason=None, placement=PLACED, entries=entries, late=[], deliveries=True, incomplete=[],
    )  # fmt: skip


def test_a_failover_is_drawn_from_the_loss_until_audio_flows_again() -> None:
    stages = {"end_of_turn": 300, "llm": 500, "nonsense": 9, "tts": "x"}
    entries = [
        event(0, "call.created", state="ringing", owner=owner(1, "a", "created")),
        event(1, "call.answered", state="in_progress", epoch=1),
        event(5, "turn.answered", data={"utterance": 1, "total_ms": 800, "stages": stages}),
        event(
            6,
            "call.reconnecting",
            state="reconnecting",
            owner=owner(2, "b", "silent"),
            data={"reason": "silent"},
        ),
        event(6.5, "call.reconnected", state="in_progress"),
        event(10, "call.ended", state="completed"),
    ]
    late = TimelineDelivery(
        webhook_id="whk_1",
        event_type="call.ended",
        event_seq=6,
        attempt=9,
        status=None,
        error="x",
        duration_ms=5,
    )
    entries.append(TimelineEntry(kind="delivery", at=(BEGAN + timedelta(hours=5)).isoformat(), delivery=late))
    drawn = waterfall(made(entries, 10), BEGAN + timedelta(hours=6), lines_max=100)
    lanes = {lane.name: lane.bars for lane in drawn.lanes}
    assert [(round(b.x), round(b.width)) for b in lanes["State"]] == [(0, 8), (8, 42), (50, 4), (54, 29)]
    assert [b.name for b in lanes["Edge"]] == ["1 a", "2 b"]
    assert [(b.title, round(b.x)) for b in lanes["Moved, lost"]] == [("the edge was silent: 500 ms", 50)]
    assert "Webhooks" not in lanes, "what comes hours after the end is in the list alone"
    assert [b.name for b in drawn.turns[0].stages] == ["end_of_turn", "llm"]
    assert len(drawn.lines) == 7 and drawn.lines[-1].tone == "bad"


@given(
    st.lists(st.tuples(st.floats(-5, 1e5), st.sampled_from(["call.moved", "turn.answered", "call.reconnecting", "x"])), max_size=30),
    st.one_of(st.none(), st.floats(0, 1e5)),
)  # fmt: skip
def test_whatever_the_clocks_say_it_stays_in_its_frame(
    times: list[tuple[float, str]], ended: float | None
) -> None:
    entries = [event(at, kind, data={"total_ms": 700, "stages": {"llm": 700}}) for at, kind in times]
    drawn = waterfall(made(entries, ended), BEGAN + timedelta(seconds=50), lines_max=10)
    for lane in drawn.lanes:
        for bar in lane.bars:
            assert 0 <= bar.x <= 100 and bar.width > 0
    assert len(drawn.lines) <= 10 and len(drawn.lines) + drawn.left_out == len(entries)
    assert 1 <= len(drawn.ticks) <= 20


def test_no_label_is_cut_off_on_a_phone() -> None:
    for place in PLACES:
        x, _ = drawing.at(place.latitude, place.longitude)
        wide = 12.0 + drawing.GAP + drawing.LETTER * len(place.id)
        left = drawing.label_left(x, 12.0, place.id)
        assert (x - wide > 0) if left else (x + wide < drawing.WIDTH), place.id
