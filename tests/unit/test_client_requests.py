"""What the client library asks, and how long it waits for it."""

from __future__ import annotations

from voxplane import requests as ask


def test_a_new_ticket_and_a_test_of_an_endpoint_have_times_of_their_own() -> None:
    """An instance that hangs is passed over while the caller can still be saved; the others have the client's time."""
    assert ask.new_ticket("call_1", "old").sent["timeout"] == ask.TICKET_WITHIN_S
    assert "timeout" not in ask.get_call("call_1").sent
    assert "timeout" not in ask.end_call("call_1").sent
    # the endpoint has 15 s for a handshake and 15 s for the event, and the service waits for its rate before both
    tried = (ask.try_webhook("whk_1", "call.ended"), ask.Request("POST", "/v1/webhooks/whk_1/test", {}))
    assert all(r.sent["timeout"] > 2 * (15 + 2) for r in tried)
