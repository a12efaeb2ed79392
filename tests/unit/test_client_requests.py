"""What the client library asks, and how long it waits for it."""

from __future__ import annotations

from voxplane import requests as ask


def test_only_a_new_ticket_has_a_time_of_its_own() -> None:
    """An instance that hangs is passed over while the caller can still be saved; the others have the client's time."""
    assert ask.new_ticket("call_1", "old").sent["timeout"] == ask.TICKET_WITHIN_S
    assert "timeout" not in ask.get_call("call_1").sent
    assert "timeout" not in ask.end_call("call_1").sent
