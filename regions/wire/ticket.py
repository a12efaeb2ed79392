"""The ticket: what lets a caller attach, on the primary and on two standbys, without anyone being asked.

Decides its claims, how its private part is sealed, and when a grant may be used (`admit`, pure: `now` is a
parameter). Leaves signing to the control plane and the verification of the signature to `read`.

A ticket is a JWT signed with Ed25519 (RFC 8037, RFC 8725: one algorithm, explicit `typ`). The caller sees its
claims; what only edges may know (the backend's address, its parameters, the call's snapshot key) is sealed under
a fleet key with AES-256-GCM, bound to the call's id.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

import jwt
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TICKET_TYP = "vx-ticket+jwt"
_encode = msgspec.json.Encoder().encode
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
TICKET_AUDIENCE = "voxplane.edge"
TICKET_ISSUER = "voxplane"
TICKET_BYTES_MAX = 32 * 1024
CLOCK_SKEW_S = 10


class TicketError(Exception):
    """A ticket that does not admit. `code` is stable; `fix` says what the holder can do."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fix = fix


class Grant(msgspec.Struct, frozen=True, kw_only=True, rename={"epoch": "e", "incarnation": "i"}):
    """One epoch for one (edge, incarnation). `url` is the listener of the edge that the call's kind of
    caller attaches to: ``ws(s)://host:port``, over WebRTC ``http(s)://host:port``."""

    epoch: int
    edge: str
    incarnation: str
    region: str
    url: str


class Reconnect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happens while the backend is lost: what the caller hears (``tone`` or ``silence``), and for how long it is dialled.
    `silent_s`: after how long without a sign of life, a pong included, it is lost."""

    sound: str = "tone"
    deadline_s: float = 20.0
    silent_s: float = 20.0


DIALECT_RATES_HZ: dict[str, tuple[int, ...]] = {
    "twilio": (8_000,),
    "teler": (8_000, 16_000),
    "exotel": (8_000, 16_000, 24_000),
    "native": (16_000, 8_000, 24_000, 48_000),
}
"""The dialects, and the rates of audio in each, the default first."""


class Agent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The customer's AI backend, as the call asked for it. `parameters` reach it as `start.customParameters`. `sample_rate` in Hz;
    0: the dialect's own."""

    url: str
    dialect: str = "twilio"
    sample_rate: int = 0
    parameters: dict[str, str] = {}
    fallback_url: str | None = None
    reconnect: Reconnect = Reconnect()


class EndWhen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """After how many seconds a call ends by itself; 0: never. See `regions.edge.endings`."""

    idle_s: float = 0.0
    silence_s: float = 0.0
    monologue_s: float = 0.0


class Turns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the caller's turns are found, and what its voice does to the agent's. `docs/reference/turns.md` has the bounds.

    `mode`: ``auto``, ``push_to_talk`` or ``off``. `start_ms`: so much voice is speech; `end_ms`: so much silence ends a turn, up to
    `end_ms_max` for a speaker who needs it. `barge_in`: ``two_step``, ``immediate`` or ``off``; `barge_in_ms`: so much speech over
    the agent cancels it, in two steps.
    """

    mode: str = "auto"
    start_ms: int = 60
    end_ms: int = 320
    end_ms_max: int = 1_000
    barge_in: str = "two_step"
    barge_in_ms: int = 200


class AgentSecret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """With which the upgrade of the backend's socket is signed. `until_s`: until when, in Unix seconds; 0: there is no end."""

    secret: str
    until_s: int = 0


class MovedFor(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call is moved, for the event of whoever takes it. `by`: ``gain``. From one region to another, by ways of so many
    milliseconds (the caller's and the backend's together), seen in so many windows of measurement."""

    by: str
    from_region: str
    to_region: str
    before_ms: float
    after_ms: float
    windows: int


class Sealed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only edges read. `snapshot_key`: 32 bytes, base64url. `local_targets`: the backend may be on loopback or `ws://`.
    `from_number`, `to_number`: who calls whom, as the create said; the backend is told. `moved_for`: in a
    ticket for a move. `end_when` and `turns`: left out where all is by default. `latency_budget`: milliseconds by stage, and
    ``total``. `secrets`: the newest first. `trace`: the call's `traceparent`, where it is traced."""

    agent: Agent
    snapshot_key: str
    local_targets: bool = False
    from_number: str = ""
    to_number: str = ""
    moved_for: MovedFor | None = None
    end_when: EndWhen = EndWhen()
    latency_budget: dict[str, float] = {}
    turns: Turns = Turns()
    secrets: list[AgentSecret] = []
    trace: str = ""


class Claims(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"call": "sub", "project": "prj", "grants": "g", "sealed": "x"},
):
    """`iat`/`exp` in Unix seconds: the ticket resumes until `exp` (the maximum duration), attaches first until `attach_by`.

    `max_s`: the call's maximum duration in seconds. `x`: ``<fleet key id>.<nonce and ciphertext, base64url>``.
    """

    iss: str
    aud: str
    call: str
    project: str
    jti: str
    iat: int
    exp: int
    attach_by: int
    max_s: int
    grants: list[Grant]
    sealed: str
    kind: str = "websocket"


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    kid: str
    key: Ed25519PublicKey


def b64(data: bytes) -> str:
    return _b64(data).decode()


def _b64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_URL_SAFE)


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def seal(plain: bytes, *, key_id: str, key: bytes, nonce: bytes, bound_to: str) -> str:
    """``<key id>.<base64url(nonce + ciphertext)>``: AES-256-GCM with a 12-byte nonce; `bound_to` is authenticated."""
    return key_id + "." + b64(nonce + AESGCM(key).encrypt(nonce, plain, bound_to.encode()))


def unseal(text: str, *, keys: dict[str, bytes], bound_to: str) -> bytes:
    """The plain bytes; raises `TicketError` ``unknown_fleet_key`` or ``forged``."""
    key_id, _, body = text.partition(".")
    key = keys.get(key_id)
    if key is None:
        raise TicketError(
            "unknown_fleet_key", "this was sealed under a key this edge does not hold", "ask for a new ticket"
        )
    try:
        raw = unb64(body)
        return AESGCM(key).decrypt(raw[:12], raw[12:], bound_to.encode())
    except (InvalidTag, ValueError):
        raise TicketError(
            "forged", "what was sealed for edges was changed on the way", "use the ticket as it was issued"
        ) from None


def sign(claims: Claims, *, kid: str, key: Ed25519PrivateKey) -> str:
    """A compact JWS (RFC 7515) over the claims."""
    signed = _header(kid) + b"." + _b64(_encode(claims))
    return (signed + b"." + _b64(key.sign(signed))).decode()


@lru_cache(maxsize=16)
def _header(kid: str) -> bytes:
    """The same for every ticket that a key signs."""
    return _b64(msgspec.json.encode({"alg": "EdDSA", "kid": kid, "typ": TICKET_TYP}))


UNREADABLE = (jwt.PyJWTError, RecursionError, UnicodeError)
"""What the library raises for what is no token; JSON may be nested deeper than it can read."""


def read(token: str, *, keys: dict[str, Ed25519PublicKey]) -> Claims:
    """The claims of a genuine ticket, whatever its age; raises `TicketError` ``malformed``, ``unknown_key`` or ``forged``."""
    if len(token) > TICKET_BYTES_MAX:
        raise TicketError(
            "malformed", "the ticket is too long", "send the ticket as POST /v1/calls returned it"
        )
    try:
        header = jwt.get_unverified_header(token)
    except UNREADABLE:
        raise TicketError(
            "malformed", "this is not a ticket", "send the ticket as POST /v1/calls returned it"
        ) from None
    if header.get("typ") != TICKET_TYP or header.get("alg") != "EdDSA":
        raise TicketError(
            "malformed", "this is not a ticket", "send the ticket as POST /v1/calls returned it"
        )
    key = keys.get(str(header.get("kid")))
    if key is None:
        raise TicketError(
            "unknown_key", "the ticket is signed with a key this edge does not know", "ask for a new ticket"
        )
    try:
        payload = jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            audience=TICKET_AUDIENCE,
            issuer=TICKET_ISSUER,
            options={"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "sub", "jti"]},
        )
        return msgspec.convert(payload, Claims)
    except (*UNREADABLE, msgspec.ValidationError):
        raise TicketError(
            "forged", "the ticket's signature or claims are not ours", "use the ticket as it was issued"
        ) from None


def admit(claims: Claims, *, epoch: int, edge: str, incarnation: str, now_s: float, resuming: bool) -> Grant:
    """The grant under which this (edge, incarnation) may own the call at `epoch`, or a `TicketError`.

    1. Expired for resuming, or for a first attach: ``expired``.
    2. No grant at this epoch: ``no_such_epoch``.
    3. Granted to another edge: ``wrong_edge``.
    4. Granted to an earlier life of this edge, which a restart ended: ``restarted``.
    """
    if now_s > claims.exp + CLOCK_SKEW_S:
        raise TicketError("expired", "the ticket has expired", "create a new call")
    if not resuming:
        check_first(claims, now_s=now_s)
    grant = next((g for g in claims.grants if g.epoch == epoch), None)
    if grant is None:
        raise TicketError(
            "no_such_epoch", f"the ticket grants no epoch {epoch}", "use an epoch of the ticket's grants"
        )
    if grant.edge != edge:
        raise TicketError("wrong_edge", "this epoch is granted to another edge", f"attach at {grant.url}")
    if grant.incarnation != incarnation:
        raise TicketError(
            "restarted", "this edge has restarted and owns nothing of before", "take the next standby"
        )
    return grant


def check_first(claims: Claims, *, now_s: float) -> None:
    """Raises `TicketError` ``expired`` where it is too late to attach for the first time, in whatever way."""
    if now_s > claims.attach_by + CLOCK_SKEW_S:
        raise TicketError("expired", "the time to attach for the first time has passed", "create a new call")
