"""A chunk that its backend takes back: what of it was not sent is dropped, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regions.media.playout import Playout, chunk

FRAME = 160


def played(playout: Playout) -> bytes:
    """All that is left, without the silence that fills up a frame."""
    playout.end_utterance()
    frames = []
    while (popped := playout.pop()) is not None:
        if popped.frame is not None:
            frames.append(popped.frame)
    return b"".join(frames).replace(b"\xff", b"")


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 700)), max_size=8),
    st.integers(0, 6),
    st.integers(0, 3),
)
def test_all_but_the_chunk_is_played(given_: list[tuple[int, int]], sent: int, taken_back: int) -> None:
    """`sent`: so many frames have gone before. Each chunk is of bytes that say which it is."""
    playout = Playout()
    for i, (id_, length) in enumerate(given_):
        playout.push(chunk(bytes([i + 1]) * length, b"%d" % id_))
    gone = b"".join(p.frame for _ in range(sent) if (p := playout.pop()) is not None and p.frame is not None)
    playout.cancel(b"%d" % taken_back)
    heard = gone.replace(b"\xff", b"") + played(playout)
    for i, (id_, length) in enumerate(given_):
        count = heard.count(bytes([i + 1]))
        if id_ == taken_back:
            assert count < gone.count(bytes([i + 1])) + FRAME
        else:
            assert count == length
    assert playout.queued_ms == 0


def test_the_chunk_that_is_being_played_stops_at_once_and_the_next_follows() -> None:
    playout = Playout()
    playout.push(chunk(b"\x01" * FRAME * 10, b"1"))
    playout.push(chunk(b"\x02" * FRAME * 2, b"2"))
    for _ in range(3):
        playout.pop()
    playout.cancel(b"1")
    assert played(playout) == b"\x02" * FRAME * 2
    assert playout.position.utterance == 0


def test_what_is_not_there_is_no_error_and_marks_keep_their_places() -> None:
    playout = Playout()
    playout.push(chunk(b"\x01" * FRAME, b"1"))
    playout.mark("a")
    playout.push(b"\x02" * FRAME)
    playout.mark("b")
    for name in (b"9", b"1", b"1"):
        playout.cancel(name)
    playout.end_utterance()
    found = [playout.pop() for _ in range(3)]
    assert [p.marks for p in found if p is not None] == [("a",), ("b",)]
    assert [p.frame for p in found if p is not None] == [b"\x02" * FRAME, None]


def test_what_is_taken_back_makes_room_and_is_not_counted_as_received() -> None:
    playout = Playout()
    playout.push(chunk(b"\x01" * FRAME * 50, b"1"))
    assert (playout.queued_ms, playout.received_ms) == (1_000, 1_000)
    playout.pop()
    playout.cancel(b"1")
    assert (playout.queued_ms, playout.received_ms) == (0, 20)
