"""The two tokens an edge shows: one to enrol with, then those it signs itself. Pure but for the signature's own randomness.

RFC 8725: one algorithm (EdDSA), an explicit `typ`, audience and issuer checked, short lives, `jti` for single use (kept by
the store). An enrolment token names its region; an edge's own token is verified with the key it registered.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.errors import Unauthenticated
from regions.wire.uplink import EDGE_KEY_TYP, EDGE_TOKEN_AUDIENCE, EDGE_TOKEN_TYP, REGISTER_TYP

ENROL_TTL_S = 300
EDGE_TTL_MAX_S = 60
SKEW_S = 30
FIX = "Ask an operator for a new enrolment token, or let the edge sign a new token of its own."


Second = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
"""Unix seconds, within what a clock can show: also a signer of ours may write any number."""
UNREADABLE = (jwt.PyJWTError, RecursionError, UnicodeError)


class EnrolClaims(msgspec.Struct, frozen=True, kw_only=True):
    """`ver`: of the region's enrolment tokens; a revocation counts it up."""

    region: str
    jti: str
    iat: Second
    exp: Second
    ver: int


class EdgeClaims(msgspec.Struct, frozen=True, kw_only=True):
    """`iss`: the edge's id; `sub`: its region; `inc`: its incarnation."""

    iss: str
    sub: str
    inc: str
    jti: str
    iat: Second
    exp: Second


def make_enrol(region: str, *, version: int, jti: str, now_s: int, kid: str, key: Ed25519PrivateKey) -> str:
    payload = {
        "aud": EDGE_TOKEN_AUDIENCE,
        "region": region,
        "ver": version,
        "jti": jti,
        "iat": now_s,
        "exp": now_s + ENROL_TTL_S,
    }
    return jwt.encode(payload, key, algorithm="EdDSA", headers={"kid": kid, "typ": REGISTER_TYP})


def header_of(token: str) -> dict[str, Any]:
    """The unverified header of a token of a length we would read; raises `Unauthenticated`."""
    if len(token) > 4_096:
        raise Unauthenticated("The token is too long.", fix=FIX)
    try:
        return jwt.get_unverified_header(token)
    except UNREADABLE:
        raise Unauthenticated("This is not a token an edge may use.", fix=FIX) from None


def issuer_of(token: str) -> str:
    """Who claims to have signed it: to find the key, and nothing else."""
    header_of(token)
    try:
        return str(jwt.decode(token, options={"verify_signature": False}).get("iss", ""))
    except UNREADABLE:
        raise Unauthenticated("This is not a token an edge may use.", fix=FIX) from None


def read_enrol(token: str, keys: dict[str, Ed25519PublicKey], *, now_s: float) -> EnrolClaims:
    header = header_of(token)
    key = keys.get(str(header.get("kid")))
    if key is None:
        raise Unauthenticated("The token is signed with an unknown key.", fix=FIX)
    return _read(token, header, key, typ=REGISTER_TYP, into=EnrolClaims, ttl_s=ENROL_TTL_S, now_s=now_s)


def is_signed_by(token: str, raw: bytes) -> bool:
    """Whether this key (raw Ed25519) signed it, whatever it says. Raises `Unauthenticated` for what is no token of ours."""
    if header_of(token).get("alg") != "EdDSA":
        raise Unauthenticated("The token is of another kind.", fix=FIX)
    options: Any = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False}
    try:
        jwt.decode(token, Ed25519PublicKey.from_public_bytes(raw), algorithms=["EdDSA"], options=options)
    except UNREADABLE:
        return False
    return True


def read_new_key(proof: str, key: Ed25519PublicKey, *, now_s: float) -> EdgeClaims:
    """What proves that its signer has `key`."""
    return _read(
        proof, header_of(proof), key, typ=EDGE_KEY_TYP, into=EdgeClaims, ttl_s=EDGE_TTL_MAX_S, now_s=now_s
    )


def read_edge(token: str, key: Ed25519PublicKey, *, now_s: float) -> EdgeClaims:
    return _read(
        token, header_of(token), key, typ=EDGE_TOKEN_TYP, into=EdgeClaims, ttl_s=EDGE_TTL_MAX_S, now_s=now_s
    )


T = TypeVar("T", EnrolClaims, EdgeClaims)


def _read(
    token: str,
    header: dict[str, Any],
    key: Ed25519PublicKey,
    *,
    typ: str,
    into: type[T],
    ttl_s: int,
    now_s: float,
) -> T:
    if header.get("typ") != typ or header.get("alg") != "EdDSA":
        raise Unauthenticated("The token is of another kind.", fix=FIX)
    try:
        payload = jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            audience=EDGE_TOKEN_AUDIENCE,
            options={"require": ["exp", "iat", "jti"], "verify_exp": False, "verify_iat": False},
        )
        claims = msgspec.convert(payload, into)
    except (*UNREADABLE, msgspec.ValidationError):
        raise Unauthenticated("The token's signature or claims do not hold.", fix=FIX) from None
    if claims.exp < now_s - SKEW_S or claims.iat > now_s + SKEW_S:
        off_s = round(claims.iat - now_s)
        raise Unauthenticated(
            f"The token was made {abs(off_s)} s {'ahead of' if off_s > 0 else 'before'} this instance's clock.",
            fix="Set the clock of whoever made it, then make a new one.",
        )
    if claims.exp - claims.iat > ttl_s:
        raise Unauthenticated("The token lives too long.", fix=FIX)
    return claims
