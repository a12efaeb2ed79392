"""What `voxplane call` prints of a turn."""

from __future__ import annotations

from app.local.speak import said


def test_a_turn_without_a_text_says_why() -> None:
    assert said({"role": "agent", "text": "Hello"}) == "Hello"
    assert said({"role": "tool", "name": "lookup_order"}) == "lookup_order"
    assert said({"role": "agent", "text": "", "interrupted": True}) == "(cut before any of it was heard)"
    assert said({"role": "caller", "text": ""}) == "(without a text)"
