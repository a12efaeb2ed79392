"""Cursors: what goes out comes back, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import cursors
from app.errors import BadRequest

values = st.lists(st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20), max_size=5)


@given(values)
def test_a_cursor_gives_back_its_values(given_values: list[str | int]) -> None:
    assert cursors.decode("events", cursors.encode("events", *given_values)) == given_values


@given(st.text(max_size=600))
def test_nonsense_is_refused_with_a_code(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        cursors.decode("events", text)
    assert refused.value.stable_code == "bad_cursor"


@given(st.integers(0, 10_000), st.data())
def test_a_changed_cursor_is_refused(value: int, data: st.DataObject) -> None:
    cursor = cursors.encode("events", value, "us-east")
    place = data.draw(st.integers(0, len(cursor) - 2))  # the last letter holds bits that say nothing
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
    changed = cursor[:place] + letter + cursor[place + 1 :]
    if changed != cursor:
        with pytest.raises(BadRequest):
            cursors.decode("events", changed)


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(BadRequest, match="another list"):
        cursors.decode("calls", cursors.encode("events", 1))
