"""What quotas allow of a call, without a database."""

from __future__ import annotations

import pytest

from app.calls.policy import check_bounds
from app.calls.shapes import AgentRequest, CallerRequest, CreateCall
from app.errors import Invalid
from app.projects.quotas_policy import (
    Bounds,
    KeyLimits,
    Limits,
    Verdict,
    in_order,
    left,
    read_defaults,
    refused,
    within,
)

AGENT = AgentRequest(url="wss://example.com/")


def to(number: str, *allowed: str, key: list[str] | None = None) -> str | None:
    """Why the number may not be called; None: it may."""
    bounds = Bounds(project=Limits(destinations=list(allowed)), key=KeyLimits(destinations=key))
    found = refusal(CreateCall(agent=AGENT, caller=CallerRequest(to=number)), bounds)
    if found is None:
        return None
    assert found.stable_code == "destination_not_allowed"
    assert found.errors[0].pointer == "/caller/to"
    assert not any(c.isdigit() for c in found.detail + found.errors[0].detail), "it repeats the number"
    return found.errors[0].detail


def refusal(body: CreateCall, bounds: Bounds) -> Invalid | None:
    try:
        check_bounds(body, bounds)
    except Invalid as error:
        return error
    return None


@pytest.mark.parametrize(
    ("number", "allowed", "why"),
    [
        ("+1 415 555 0123", ("US",), None),
        ("tel:+14155550123", ("US",), None),
        ("+44 20 7946 0018", ("US", "GB"), None),
        ("+44 20 7946 0018", ("US",), "GB is not listed"),
        ("+1 876 555 0123", ("US", "CA"), "JM is not listed"),  # behind +1 as well: what toll fraud lives on
        ("+1 809 555 0123", ("US",), "DO is not listed"),
        ("+53 7 555 0123", ("US",), "CU is not listed"),
        ("+44 909 879 0000", ("GB",), "numbers that are charged extra are not listed"),
        ("+44 909 879 0000", ("GB", "premium"), None),
        ("+1 900 555 0123", ("US",), "numbers that are charged extra are not listed"),
        ("+881 6 1234 5678", ("US", "GB"), "numbers of no country are not listed"),
        ("+1 415 555 0123", (), "US is not listed"),
        ("sip:bob@example.com", ("US",), "sip: addresses are not listed"),
        ("sip:bob@example.com", ("sip",), None),
        ("sip:+5375550123@gateway.example.com", ("sip", "US"), "CU is not listed"),
        ("sips:+14155550123;phone-context=x@gw.example.com", ("sip", "US"), None),
    ],
)
def test_a_number_may_be_called_where_its_country_is_listed(
    number: str, allowed: tuple[str, ...], why: str | None
) -> None:
    assert to(number, *allowed) == why


def test_both_the_project_and_the_key_have_to_allow_it() -> None:
    assert to("+14155550123", "US", key=["US"]) is None
    assert to("+14155550123", "US", key=["IN"]) == "US is not listed"
    assert to("+14155550123", "IN", key=["US"]) == "US is not listed"


def test_a_phone_is_looked_at_as_everybody_else_is() -> None:
    """Callers of that kind are refused elsewhere; once they are not, this stands already."""
    body = CreateCall(agent=AGENT, caller=CallerRequest(kind="phone", from_="+14155550123", to="+5375550123"))
    with pytest.raises(Invalid, match="destination"):
        check_bounds(body, Bounds(project=Limits(destinations=["US"])))


def test_what_was_not_asked_for_is_shortened_and_what_was_is_refused() -> None:
    bounds = Bounds(project=Limits(max_duration_s=600), key=KeyLimits(max_duration_s=60))

    assert check_bounds(CreateCall(agent=AGENT), bounds).max_duration_s == 60
    assert check_bounds(CreateCall(agent=AGENT, max_duration_s=59), bounds).max_duration_s == 59
    with pytest.raises(Invalid) as caught:
        check_bounds(CreateCall(agent=AGENT, max_duration_s=61), bounds)
    assert caught.value.extra == {"quota": "max_duration_s", "limit": 60}


def test_a_key_hands_out_no_more_than_it_has() -> None:
    own = KeyLimits(concurrent_calls=5, destinations=["US", "IN"])

    assert within(KeyLimits(), own) == own
    assert within(KeyLimits(concurrent_calls=2, creates_per_s=9), own) == KeyLimits(
        concurrent_calls=2, creates_per_s=9, destinations=["US", "IN"]
    )
    with pytest.raises(Invalid) as caught:
        within(KeyLimits(concurrent_calls=6, destinations=["US", "CU"]), own)
    assert [e.pointer for e in caught.value.errors] == ["/limits/concurrent_calls", "/limits/destinations"]


def test_the_headers_say_what_is_left() -> None:
    bounds = Bounds(project=Limits(creates_per_s=50, concurrent_calls=100), key=KeyLimits(concurrent_calls=3))
    assert left(Verdict(None, 40, 1, 12.5, None), bounds) == {
        "RateLimit-Policy": '"project.creates_per_s";q=50;w=1, "project.concurrent_calls";q=100, "key.concurrent_calls";q=3',
        "RateLimit": '"project.creates_per_s";r=12;t=1, "project.concurrent_calls";r=60, "key.concurrent_calls";r=2',
    }
    assert left(Verdict(None, None, None, None, None), Bounds()) == {}

    error = refused(Verdict("key.concurrent_calls", 40, 3, 12.5, None), bounds)
    assert error.rate is not None
    assert (error.stable_code, error.retry_after_s) == ("quota-exceeded", 5)
    assert error.rate.headers() == {
        "RateLimit-Policy": '"key.concurrent_calls";q=3',
        "RateLimit": '"key.concurrent_calls";r=0;t=5',
    }
    assert "admin" in error.mend


def test_a_country_that_no_number_is_of_is_said_to_be_none() -> None:
    with pytest.raises(Invalid) as caught:
        in_order(KeyLimits(destinations=["GB", "UK", "sip"]), "/limits/destinations")
    assert [(e.pointer, "UK" in e.detail) for e in caught.value.errors] == [("/limits/destinations", True)]
    with pytest.raises(ValueError, match="no number is of UK"):
        read_defaults("destinations=GB+UK")
    assert read_defaults("destinations=GB+sip").destinations == ["GB", "sip"]
