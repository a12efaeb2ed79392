"""What the client library asks, and how long it waits for it."""

from __future__ import annotations

import httpx
import pytest

from voxplane import ApiError, Client
from voxplane import requests as ask


def test_a_new_ticket_and_a_test_of_an_endpoint_have_times_of_their_own() -> None:
    """An instance that hangs is passed over while the caller can still be saved; the others have the client's time."""
    assert ask.new_ticket("call_1", "old").sent["timeout"] == ask.TICKET_WITHIN_S
    assert "timeout" not in ask.get_call("call_1").sent
    assert "timeout" not in ask.end_call("call_1").sent
    # the endpoint has 15 s for a handshake and 15 s for the event, and the service waits for its rate before both
    tried = (ask.try_webhook("whk_1", "call.ended"), ask.Request("POST", "/v1/webhooks/whk_1/test", {}))
    assert all(r.sent["timeout"] > 2 * (15 + 2) for r in tried)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://api.example.com"])
def test_what_is_no_base_url_is_told_at_once_and_not_tried(url: str) -> None:
    with pytest.raises(ValueError, match="write it like https://"):
        Client([url], "vx_test_key")


@pytest.mark.parametrize("key", ["", "a\nb", "é", " vx_test_key"])
def test_what_no_header_can_carry_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="no API key"):
        Client("https://api.example.com", key)


def test_a_web_page_is_not_taken_for_the_answer() -> None:
    """As of a proxy that wants somebody to sign in first."""
    page = httpx.Response(200, html="<h1>sign in</h1>")
    with pytest.raises(ApiError, match="web page") as raised:
        ask.Answer(page).result()
    assert (raised.value.status, raised.value.code) == (200, "not_the_api")
    assert ask.Answer(httpx.Response(200, json={"id": "call_1"})).result() == {"id": "call_1"}
