"""What a sign-in has to be. Pure: lengths, times, how many tries, where one may be sent back to.

Decides the figures; that they are kept is the services' business.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from datetime import datetime, timedelta
from urllib.parse import urlsplit

SECRET_BYTES = 32
SESSION_IDLE = timedelta(hours=12)
SESSION_LIFE = timedelta(days=7)
SEEN_EVERY = timedelta(minutes=1)
"""A session's last sight is written down that exactly."""
SIGN_IN_LINK_LIFE = timedelta(minutes=10)
PASSWORD_LINK_LIFE = timedelta(days=2)
FLOW_LIFE = timedelta(minutes=10)
TRIES_WITHIN = timedelta(minutes=15)
TRIES_OF_ACCOUNT_FROM_ADDRESS_MAX = 10
TRIES_OF_ADDRESS_MAX = 30
TRIES_OF_ACCOUNT_MAX = 100
"""From wherever: whoever tries without end from one place locks nobody out elsewhere."""
PASSWORD_MIN, PASSWORD_MAX = 12, 512
EMAIL_MAX, NAME_MAX = 254, 128
RETURN_TO_MAX = 1_024
HOME = "/console"

_EMAIL = re.compile(r"[^@\s<>\"'\x00-\x20\x7f]{1,64}@[^@\s<>\"'\x00-\x20\x7f]{1,189}")


def email_of(text: str) -> str | None:
    """As it is stored: small letters; None where it is none."""
    found = text.strip().lower()
    return found if len(found) <= EMAIL_MAX and _EMAIL.fullmatch(found) else None


def password_fault(password: str, email: str) -> str | None:
    """Why a password is not taken. Length is what counts; what anybody would try first is refused."""
    if len(password) < PASSWORD_MIN:
        return f"must have at least {PASSWORD_MIN} characters"
    if len(password) > PASSWORD_MAX:
        return f"must have at most {PASSWORD_MAX} characters"
    if "\0" in password:
        return "contains a character that cannot be stored"
    small = password.lower()
    if email.partition("@")[0] in small or len(set(small)) < 5:
        return "is too easy to guess: take several words that do not belong together"
    return None


def hash_of(secret: str) -> bytes:
    """How a random secret is stored: it is long enough that a fast hash will do."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def token_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def csrf_of(session_secret: str) -> str:
    """What every form of a session carries. Whoever knows it learns nothing of the session's secret."""
    return token_of(hmac.digest(session_secret.encode(), b"voxplane console form", "sha256"))


def challenge_of(verifier: str) -> str:
    """PKCE, RFC 7636, method S256."""
    return token_of(hashlib.sha256(verifier.encode()).digest())


def ends_at(now: datetime) -> datetime:
    return now + SESSION_LIFE


def address_group(address: str) -> str:
    """Of IPv6 the /64, which one customer of a provider has whole."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def return_to(asked: str | None) -> str:
    """Where a sign-in leads: a page of the console, never another site."""
    if not asked or len(asked) > RETURN_TO_MAX or not asked.isascii() or not asked.isprintable():
        return HOME
    if "\\" in asked or "//" in asked or not (asked == HOME or asked.startswith((f"{HOME}/", f"{HOME}?"))):
        return HOME
    parsed = urlsplit(asked)
    if parsed.scheme or parsed.netloc or ".." in parsed.path or parsed.path.startswith(f"{HOME}/sign-"):
        return HOME
    return asked
