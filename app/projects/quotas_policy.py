"""What a project and its keys may use: what a limit is, what each allows of a create, and how that is said. Pure.

Decides which number may be called and how long a call may last; how many calls there are and how fast they come is counted in the
database (``vx.admit_creates``). A key's limits lie within its project's: each of the two has to allow a call. Of what a project
has no limit, the deployment's default holds.

The cases of a number, where destinations are listed:

1. `tel:` and E.164: the number's own country has to be listed. Numbers of no country (satellites, +883) and numbers whose country
   cannot be told are in no list; within +1 it is the island and not the code that counts
2. one that is charged extra (premium rate, shared cost): ``premium`` has to be listed too
3. `sip:`: ``sip`` has to be listed; where its user is a number, that has to be allowed as well
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import msgspec
import phonenumbers
from msgspec import Meta

from app.errors import FieldError, Invalid, QuotaExceeded, Rate

COUNT_MAX = 1_000_000
SIP, PREMIUM = "sip", "premium"
DESTINATIONS = frozenset({*phonenumbers.SUPPORTED_REGIONS, SIP, PREMIUM})
PREMIUM_TYPES = frozenset(
    {phonenumbers.PhoneNumberType.PREMIUM_RATE, phonenumbers.PhoneNumberType.SHARED_COST}
)
PROJECT = UUID(int=0)
WAIT_FOR_CALL_S = 5
"""When a call will end, nobody knows: so long it is waited for."""

Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
Destination = Annotated[
    str,
    Meta(
        pattern="^(?:[A-Z]{2}|sip|premium)$",
        description="A country (ISO 3166-1, two capitals), `sip`, or `premium`.",
        examples=["US", "IN", "sip"],
    ),
]
Destinations = Annotated[list[Destination], Meta(max_length=300)]


QuotaName = Literal["concurrent_calls", "creates_per_s", "max_duration_s", "destinations", "webhook_backlog"]


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What bounds one key, or a project; null: nothing does. `destinations`: where a number in `caller.to` may lie; none in the
    list: nowhere."""

    concurrent_calls: Count | None = None
    creates_per_s: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    max_duration_s: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    destinations: Destinations | None = None


class DefaultLimits(KeyLimits, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a deployment may bound every project by. `webhook_backlog`: so many deliveries wait for one endpoint at most; what comes
    meanwhile is queued later."""

    webhook_backlog: Annotated[int, Meta(ge=1, le=COUNT_MAX)] | None = None


class Limits(DefaultLimits, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of a project. `unbounded`: what nothing bounds, whatever the deployment's default is."""

    unbounded: Annotated[list[QuotaName], Meta(max_length=5)] = []


NO_LIMITS, NO_KEY_LIMITS = DefaultLimits(), KeyLimits()
L = TypeVar("L", bound=KeyLimits)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for one key: its project's limits and its own."""

    project: DefaultLimits = NO_LIMITS
    key: KeyLimits = NO_KEY_LIMITS

    def creates(self, key_id: UUID) -> tuple[tuple[UUID, int | None, int | None], ...]:
        """What the database has to count, as ``vx.create_limit``; nothing: it need not."""
        both = ((PROJECT, self.project), (key_id, self.key))
        return tuple(
            (whose, of.concurrent_calls, of.creates_per_s)
            for whose, of in both
            if of.concurrent_calls is not None or of.creates_per_s is not None
        )


UNBOUNDED = Bounds()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the database says of one create: the quota that has no room, and what is used and left after it."""

    refused: str | None
    live: int | None
    key_live: int | None
    spare: float | None
    key_spare: float | None


def bounds_of(quotas: str | None, limits: str | None, default: DefaultLimits = NO_LIMITS) -> Bounds:
    """As they are stored, in JSON. `default`: the deployment's."""
    if quotas is None and limits in (None, "{}") and default == NO_LIMITS:
        return UNBOUNDED
    return Bounds(
        project=over(msgspec.json.decode(quotas or "{}", type=Limits), default),
        key=msgspec.json.decode(limits or "{}", type=KeyLimits),
    )


def over(limits: Limits, default: DefaultLimits) -> DefaultLimits:
    """Each limit of the project's own, else the default unless the project is unbounded there."""
    found: dict[str, Any] = dict.fromkeys(limits.unbounded)
    found |= {n: v for n in DefaultLimits.__struct_fields__ if (v := getattr(limits, n)) is not None}
    return msgspec.structs.replace(default, **found)


def checked(limits: Limits) -> Limits:
    """As they are stored: lists in one order, each name once. Raises `Invalid` where one name is both bounded and unbounded."""
    both = [name for name in limits.unbounded if getattr(limits, name) is not None]
    if both:
        detail = f"is unbounded and has a limit as well: {both[0]}"
        raise Invalid(
            "A quota has a limit or is unbounded.", errors=[FieldError(pointer="/unbounded", detail=detail)]
        )
    return in_order(msgspec.structs.replace(limits, unbounded=sorted(set(limits.unbounded))))


def changed(limits: Limits, named: Mapping[str, Any]) -> Limits:
    """What is `named` replaced. What is lifted loses its limit, and what is given one is not unbounded any more."""
    unbounded = named.get("unbounded")
    kept = [n for n in limits.unbounded if named.get(n) is None] if unbounded is None else unbounded
    lifted = {n: None for n in unbounded or () if n not in named}
    return msgspec.structs.replace(limits, **lifted, **{**named, "unbounded": kept})


def read_defaults(text: str) -> DefaultLimits:
    """``concurrent_calls=100,creates_per_s=10,destinations=US+CA``. Raises `ValueError`, saying how to mend it."""
    found: dict[str, object] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = (p.strip() for p in part.partition("="))
        if name not in DefaultLimits.__struct_fields__:
            raise ValueError(f"{name!r} is no quota; there are {', '.join(DefaultLimits.__struct_fields__)}")
        if name in found:
            raise ValueError(f"{name} is there twice")
        if name == "destinations":
            found[name] = [place for place in value.split("+") if place]
        elif value.isascii() and value.isdigit() and len(value) < 10:
            found[name] = int(value)
        else:
            raise ValueError(f"{name} must be a whole number, not {value!r}")
    try:
        return in_order(msgspec.convert(found, DefaultLimits))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except Invalid as error:
        raise ValueError(error.errors[0].detail) from None


# ------------------------------------------------------------------------------------------------------------ a call


def duration_allowed(asked_s: int, bounds: Bounds, default_s: int) -> int:
    """How long the call may last. What was not asked for (`default_s`) is shortened; what was is refused: raises `Invalid`."""
    least = min(
        (of.max_duration_s for of in (bounds.project, bounds.key) if of.max_duration_s is not None),
        default=asked_s,
    )
    if asked_s <= least:
        return asked_s
    if asked_s == default_s:
        return least
    raise Invalid(
        f"A call may last {least} s, and this one asks for {asked_s} s.",
        code="max_duration_exceeded",
        errors=[FieldError(pointer="/max_duration_s", detail=f"at most {least}")],
        fix="Ask for less, or let the operator raise the quota max_duration_s.",
        extra={"quota": "max_duration_s", "limit": least},
    )


def check_destination(number: str | None, bounds: Bounds, pointer: str = "/caller/to") -> None:
    """`number`: as `app.calls.policy.normalised` writes it. Raises `Invalid`."""
    if number is None:
        return
    for of in (bounds.project, bounds.key):
        why = None if of.destinations is None else _refusal(number, frozenset(of.destinations))
        if why is not None:
            raise Invalid(
                "This destination is not allowed.",
                code="destination_not_allowed",
                errors=[FieldError(pointer=pointer, detail=why)],
                fix="Call another number, or let the operator list the destination in the quota `destinations`.",
                extra={"quota": "destinations", "limit": sorted(of.destinations or ())},
            )


def _refusal(number: str, allowed: frozenset[str]) -> str | None:
    """Why it may not be called; None: it may. The number itself is not repeated."""
    scheme, _, rest = number.partition(":")
    if scheme in ("sip", "sips"):
        if SIP not in allowed:
            return "sip: addresses are not listed"
        user = rest.partition("@")[0].partition(";")[0]
        return _refusal(user, allowed) if user.startswith("+") else None
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return "the country of this number cannot be told"
    country = phonenumbers.region_code_for_number(parsed)
    if country is None:
        return "the country of this number cannot be told"
    if country not in allowed:
        return f"{country} is not listed" if len(country) == 2 else "numbers of no country are not listed"
    if phonenumbers.number_type(parsed) in PREMIUM_TYPES and PREMIUM not in allowed:
        return "numbers that are charged extra are not listed"
    return None


# ------------------------------------------------------------------------------------------------------ how it is said


def refused(verdict: Verdict, bounds: Bounds) -> QuotaExceeded:
    """The answer to a create that a quota has no room for."""
    scope, _, quota = (verdict.refused or "").partition(".")
    of = bounds.project if scope == "project" else bounds.key
    whose = "The project" if scope == "project" else "This key"
    name = f"{scope}.{quota}"
    if quota == "creates_per_s":
        limit = of.creates_per_s or 0
        rate = Rate(name=name, quota=limit, window_s=1, wait_s=1)
        detail = f"{whose} may create {limit} calls a second (creates_per_s)."
        fix = "Send the same again after Retry-After, with the same Idempotency-Key; or let the operator raise the quota."
    else:
        limit = of.concurrent_calls or 0
        rate = Rate(name=name, quota=limit, window_s=0, wait_s=WAIT_FOR_CALL_S)
        detail = f"{whose} may have {limit} calls at once (concurrent_calls), and they are there."
        fix = "End a call or wait for one to end, then send the same again; or let the operator raise the quota."
    if scope == "key":
        fix = fix.replace("the operator raise the quota", "an admin create a key with a higher limit")
    extra: dict[str, object] = {"quota": quota, "scope": scope, "limit": limit, "violated-policies": [name]}
    return QuotaExceeded(detail, code="quota-exceeded", fix=fix, rate=rate, extra=extra)


def left(verdict: Verdict, bounds: Bounds) -> dict[str, str]:
    """What a create that was made says of its quotas: `RateLimit-Policy` and `RateLimit`; nothing where there are none."""
    policies: list[str] = []
    state: list[str] = []
    for scope, of, live, spare in (
        ("project", bounds.project, verdict.live, verdict.spare),
        ("key", bounds.key, verdict.key_live, verdict.key_spare),
    ):
        if of.creates_per_s is not None and spare is not None:
            policies.append(f'"{scope}.creates_per_s";q={of.creates_per_s};w=1')
            full_s = ceil((of.creates_per_s - spare) / of.creates_per_s)
            state.append(f'"{scope}.creates_per_s";r={int(spare)};t={full_s}')
        if of.concurrent_calls is not None and live is not None:
            policies.append(f'"{scope}.concurrent_calls";q={of.concurrent_calls}')
            state.append(f'"{scope}.concurrent_calls";r={max(0, of.concurrent_calls - live)}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(state)} if policies else {}


# ------------------------------------------------------------------------------------------------------------ keys


def within(asked: KeyLimits, own: KeyLimits) -> KeyLimits:
    """The limits of a key that one with limits of its `own` creates: what it is not given it inherits, and it gets no more. Raises
    `Invalid`."""
    faults: list[FieldError] = []
    found: dict[str, object] = {}
    for name in KeyLimits.__struct_fields__:
        wanted, most = getattr(asked, name), getattr(own, name)
        found[name] = most if wanted is None else wanted
        if wanted is None or most is None:
            continue
        if name == "destinations":
            more = sorted(set(wanted) - set(most))
            if more:
                faults.append(FieldError(pointer=f"/limits/{name}", detail=f"your key has no {more[0]}"))
        elif wanted > most:
            faults.append(FieldError(pointer=f"/limits/{name}", detail=f"your key has {most}"))
    if faults:
        raise Invalid("A key cannot allow more than the key that creates it.", errors=faults)
    return msgspec.convert(found, KeyLimits)


def no_wider(limits: KeyLimits, own: KeyLimits) -> bool:
    """Whether a key with these limits may do no more than one with limits of its `own`."""
    try:
        return within(limits, own) == limits
    except Invalid:
        return False


def in_order(limits: L, pointer: str = "/destinations") -> L:
    """With the destinations in one order, each once: as they are stored. Raises `Invalid` for what no number is of."""
    if limits.destinations is None:
        return limits
    if unknown := sorted(set(limits.destinations) - DESTINATIONS):
        detail = (
            f"no number is of {', '.join(unknown)}: countries are those of ISO 3166-1, such as GB and not UK"
        )
        raise Invalid("A destination is not known.", errors=[FieldError(pointer=pointer, detail=detail)])
    return msgspec.structs.replace(limits, destinations=sorted(set(limits.destinations)))
