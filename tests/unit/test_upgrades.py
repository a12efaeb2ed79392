"""The signature on a backend's socket: what the edge writes is what the client library and Twilio's validator read."""

from __future__ import annotations

import base64
import hashlib
import hmac
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.projects.agent_secret import FIRST, Version, secret, setting, valid, version_of
from app.vault import LocalKeys
from regions.agents.signing import upgrade_headers
from regions.wire.ticket import AgentSecret
from voxplane import UpgradeError, verify_upgrade

URL, CALL, NOW_S = "wss://bot.example.com/ws?shop=42", "call_01m879t1cye008jgvmksbmjcrb", 1_790_000_000
NEW, OLD = AgentSecret(secret="agsec_new"), AgentSecret(secret="agsec_old", until_s=NOW_S + 60)
PROJECT = UUID(int=7)


def signed(
    *secrets: AgentSecret, url: str = URL, now_s: int = NOW_S, dialect: str = "twilio"
) -> dict[str, str]:
    return upgrade_headers(secrets, url=url, call=CALL, dialect=dialect, now_s=now_s)


@given(st.text(max_size=80), st.text(max_size=40), st.integers(0, 1 << 33))
def test_what_is_signed_verifies(url: str, key: str, now_s: int) -> None:
    headers = signed(AgentSecret(secret=key), url=url, now_s=now_s)
    assert verify_upgrade(headers, url, key, now_s=now_s) == CALL
    with pytest.raises(UpgradeError, match="no signature"):
        verify_upgrade(headers, url + "x", key, now_s=now_s)
    with pytest.raises(UpgradeError, match="no signature"):
        verify_upgrade(headers, url, key + "x", now_s=now_s)


def test_the_form() -> None:
    mac = hmac.digest(b"agsec_new", f"{NOW_S}.{CALL}.{URL}".encode(), "sha256")
    twilio = hmac.new(b"agsec_new", URL.encode(), hashlib.sha1).digest()
    assert signed(NEW) == {
        "X-Voxplane-Call": CALL,
        "X-Voxplane-Timestamp": "1790000000",
        "X-Voxplane-Signature": "v1," + base64.b64encode(mac).decode(),
        "X-Twilio-Signature": base64.b64encode(twilio).decode(),
    }
    assert "X-Twilio-Signature" not in signed(NEW, dialect="teler")


def test_while_two_are_valid_either_will_do_and_twilios_is_the_older() -> None:
    headers = {k.lower(): v for k, v in signed(NEW, OLD).items()}
    for good in ("agsec_new", "agsec_old", ["agsec_x", "agsec_old"]):
        assert verify_upgrade(headers, URL, good, now_s=NOW_S) == CALL
    assert headers["x-twilio-signature"] == signed(OLD)["X-Twilio-Signature"]


def test_one_that_has_expired_signs_nothing() -> None:
    headers = signed(NEW, OLD, now_s=NOW_S + 60)
    assert headers == signed(NEW, now_s=NOW_S + 60)
    assert signed(OLD, now_s=NOW_S + 60) == {} == signed()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"X-Voxplane-Call": None}, "missing_header"),
        ({"X-Voxplane-Timestamp": None}, "missing_header"),
        ({"X-Voxplane-Signature": None}, "missing_header"),
        ({"X-Voxplane-Timestamp": "-1"}, "bad_timestamp"),
        ({"X-Voxplane-Timestamp": "²"}, "bad_timestamp"),
        ({"X-Voxplane-Timestamp": str(NOW_S - 301)}, "too_old"),
        ({"X-Voxplane-Timestamp": str(NOW_S + 301)}, "too_new"),
        ({"X-Voxplane-Timestamp": str(NOW_S - 1)}, "bad_signature"),
        ({"X-Voxplane-Call": "call_x"}, "bad_signature"),
        ({"X-Voxplane-Signature": ""}, "bad_signature"),
        ({"X-Voxplane-Signature": "v1,é"}, "bad_signature"),
    ],
)
def test_what_does_not_verify(change: dict[str, str | None], code: str) -> None:
    headers = {k: v for k, v in (signed(NEW) | change).items() if v is not None}
    with pytest.raises(UpgradeError) as refused:
        verify_upgrade(headers, URL, "agsec_new", now_s=NOW_S)
    assert refused.value.code == code


def test_a_secret_is_the_same_on_every_instance_and_another_for_every_project_and_version() -> None:
    one, same, other = LocalKeys(b"m" * 32), LocalKeys(b"m" * 32), LocalKeys(b"n" * 32)
    made = secret(one.derive, PROJECT, 1)
    assert made == secret(same.derive, PROJECT, 1) and made.startswith("agsec_") and len(made) == 49
    others = {
        secret(other.derive, PROJECT, 1),
        secret(one.derive, PROJECT, 2),
        secret(one.derive, UUID(int=8), 1),
    }
    assert len(others | {made}) == 4


def test_a_version_is_kept_as_a_setting() -> None:
    assert version_of({}) == FIRST == (1, 0)
    second = FIRST.following(NOW_S, 60)
    assert version_of(setting(second, "now")) == second == (2, NOW_S + 60)
    assert second.following(NOW_S, 0) == (3, 0)
    derive = LocalKeys(b"m" * 32).derive
    assert [s.until_s for s in valid(derive, PROJECT, second, NOW_S + 59)] == [0, NOW_S + 60]
    assert valid(derive, PROJECT, second, NOW_S + 60) == valid(derive, PROJECT, Version(2), 0)
