"""Signatures, against an independent library, and what follows an attempt."""

from __future__ import annotations

import base64
import json
import time

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from app.webhooks.policy import canonical, type_faults, url_faults
from app.webhooks.retry import SCHEDULE_S, Attempt, judge
from app.webhooks.samples import SAMPLES
from app.webhooks.sender import retry_after
from app.webhooks.signature import headers, public_key, read_secret, sign, sign_asymmetric, write_secret
from regions.wire.event_data import EVENT_DATA
from voxplane import WebhookError, verify

SECRET = b"s" * 24
BODY = json.dumps({"id": "evt_1", "data": {"text": "grüß dich"}}).encode()


def signed(at_s: int, secrets: list[bytes]) -> dict[str, str]:
    return headers("evt_1", at_s, sign("evt_1", at_s, BODY, secrets))


def test_an_independent_library_accepts_what_we_sign() -> None:
    sent = signed(int(time.time()), [SECRET])
    assert Webhook(write_secret(SECRET)).verify(BODY, sent)["id"] == "evt_1"


def test_our_client_accepts_what_the_independent_library_signs() -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    signature = Webhook(write_secret(SECRET)).sign("evt_1", now, BODY.decode())
    sent = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    assert verify(BODY, sent, write_secret(SECRET))["id"] == "evt_1"


def test_secrets_rotate_with_an_overlap() -> None:
    sent = signed(1_000, [b"n" * 24, SECRET])
    for secret in (b"n" * 24, SECRET):
        assert verify(BODY, sent, write_secret(secret), now_s=1_001)


def test_whoever_has_the_public_key_can_check_and_nobody_else_sign() -> None:
    private = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    signature = sign_asymmetric("evt_1", 1_000, BODY, [private])
    assert signature.startswith("v1a,")
    key = public_key(private)
    assert key.startswith("whpk_")
    raw = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    raw.verify(base64.b64decode(signature.removeprefix("v1a,")), b"evt_1.1000." + BODY)
    with pytest.raises(InvalidSignature):
        raw.verify(base64.b64decode(signature.removeprefix("v1a,")), b"evt_1.1001." + BODY)


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", "whsec_AAAA", "AAAA" * 8, "whsec_" + "A" * 31, "whsec_" + "?" * 32, "whsec_" + "A" * 120],
)
def test_a_secret_that_is_too_short_or_no_base64_is_none(text: str) -> None:
    assert read_secret(text) is None
    assert read_secret(write_secret(SECRET)) == SECRET


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"webhook-id": "evt_2"}, "bad_signature"), ({"webhook-timestamp": "1001"}, "bad_signature"),
        ({"webhook-signature": "v1,AAAA"}, "bad_signature"), ({"webhook-signature": "v1a,x"}, "bad_signature"),
        ({"webhook-timestamp": "soon"}, "bad_timestamp"), ({"webhook-timestamp": "1"}, "too_old"),
        ({"webhook-timestamp": "9999"}, "too_new"),
    ],
)  # fmt: skip
def test_anything_changed_is_refused(change: dict[str, str], code: str) -> None:
    sent = signed(1_000, [SECRET]) | change
    with pytest.raises(WebhookError) as refused:
        verify(BODY, sent, write_secret(SECRET), now_s=1_000)
    assert refused.value.code == code


def test_the_schedule() -> None:
    assert judge(Attempt(number=1, status=204), draw=0).outcome == "delivered"
    assert judge(Attempt(number=1, status=410), draw=0).outcome == "gone"
    assert judge(Attempt(number=1, status=301), draw=0.5).pause_s == 1
    assert judge(Attempt(number=1, status=429), draw=0.5).pause_s == 60
    assert judge(Attempt(number=1, status=None, timed_out=True), draw=0.5).pause_s == 60
    assert judge(Attempt(number=1, status=503, retry_after_s=90), draw=0.5).pause_s == 90
    assert judge(Attempt(number=len(SCHEDULE_S), status=500), draw=0.5).outcome == "failed"
    assert judge(Attempt(number=5, status=500, failing_s=40), draw=0.5).park
    assert not judge(Attempt(number=1, status=500), draw=0.5).park


@given(st.integers(1, 11), st.floats(0, 1))
def test_pauses_stay_within_a_fifth(number: int, draw: float) -> None:
    verdict = judge(Attempt(number=number, status=500), draw=draw)
    assert 0.8 * SCHEDULE_S[number] - 1e-6 <= verdict.pause_s <= 1.2 * SCHEDULE_S[number] + 1e-6


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_examples_are_as_the_contract_has_it(name: str) -> None:
    msgspec.convert(SAMPLES[name], EVENT_DATA[name])


@pytest.mark.parametrize(
    "same", ["https://EXAMPLE.com/a?b=C", "https://example.com:443/a?b=C", "HTTPS://example.com/a?b=C"]
)
def test_what_leads_to_the_same_place_is_the_same(same: str) -> None:
    assert canonical(same) == canonical("https://example.com/a?b=C")
    assert url_faults(same, local_targets=False, listed=None) == []


def test_what_leads_elsewhere_is_another() -> None:
    urls = (
        "https://a.io/",
        "http://a.io/",
        "https://a.io/A",
        "https://a.io/a",
        "https://a.io:8443/",
        "https://a.io/?",
    )
    assert canonical("https://a.io") == canonical("https://a.io/")
    assert len({canonical(u) for u in urls}) == 5
    assert canonical("https://[2606:4700::1]/") == canonical("https://[2606:4700::1]:443/")


def test_a_volatile_type_is_told_from_one_that_is_not() -> None:
    volatile, unknown = type_faults(["transcript.partial", "nonsense"])
    assert "volatile=true" in volatile.detail
    assert "no such" in unknown.detail


@pytest.mark.parametrize(
    ("after", "date", "said"),
    [
        ("120", "", 120.0),
        (" 7 ", "", 7.0),
        ("9" * 12, "", 1e12 - 1),
        ("Wed, 21 Oct 2026 07:30:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 120.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2026 07:30:00 GMT", "", None),
        ("Wed, 21 Oct 2026 07:30:00 -0000", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-5", "", None),
        ("1.5", "", None),
        ("soon", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", "", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(after: str, date: str, said: float | None) -> None:
    assert retry_after({"Retry-After": after, **({"Date": date} if date else {})}) == said


def test_a_retry_after_of_a_century_is_a_day() -> None:
    for much in ("9" * 12, "9" * 400):
        attempt = Attempt(number=1, status=503, retry_after_s=retry_after({"Retry-After": much}))
        assert judge(attempt, draw=0.5).pause_s == 86_400
