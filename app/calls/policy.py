"""What a create may ask for beyond its shape: addresses that may be dialled, numbers that exist, names that are free. Pure."""

from __future__ import annotations

import re

import msgspec
import phonenumbers

from app.calls.shapes import DURATION_DEFAULT_S, CallerRequest, CreateCall
from app.errors import Conflict, FieldError, Invalid, NotAvailable, ResidencyUnsatisfiable
from app.fleet.view import Fleet
from app.projects.quotas_policy import UNBOUNDED, Bounds, check_destination, duration_allowed
from regions.wire.addresses import AddressError, check_url
from regions.wire.targets import Targets
from regions.wire.ticket import DIALECT_RATES_HZ

RESERVED_PARAMETER = "voxplane_"
PARAMETERS_BYTES_MAX = 8 * 1024
EPOCHS_MAX = 1_000
_NUMBER = re.compile(r"\+[0-9](?:[ .()-]{0,2}[0-9]){1,17}")
_SIP = re.compile(r"sips?:[A-Za-z0-9._~%!$&'()*+,;=:-]+@[A-Za-z0-9.\-\[\]:]+")


def check_epochs(granted: int) -> None:
    """Raises `Conflict` ``epochs_used_up`` where a call has been given all the epochs it may have: there is nothing to wait for."""
    if granted >= EPOCHS_MAX:
        raise Conflict(
            f"The call has been granted {EPOCHS_MAX} epochs, and may have no more.",
            code="epochs_used_up",
            fix="Use the grants of the newest ticket, or create a new call.",
        )


def check_log_residency(body: CreateCall, jurisdiction: str, fleet: Fleet) -> None:
    """The log of a call stays in its project's cell. Raises `ResidencyUnsatisfiable` where the call does not allow that place, with
    the regions that lie there. `jurisdiction`: the cell's; empty: not named, and nothing is promised of it."""
    allowed = body.regions.jurisdictions
    if jurisdiction and allowed and jurisdiction not in allowed:
        raise ResidencyUnsatisfiable(
            f"The log of this project lies in {jurisdiction}, which the call does not allow.",
            errors=[
                FieldError(
                    pointer="/regions/jurisdictions", detail=f"the project's cell lies in {jurisdiction}"
                )
            ],
            fix=f"Create the call with a project in {' or '.join(sorted(allowed))}, or allow {jurisdiction}.",
            extra={
                "allowed_regions": sorted(
                    r.id for r in fleet.regions.values() if r.jurisdiction == jurisdiction
                )
            },
        )


def check_create(body: CreateCall, *, local_targets: bool, listed: Targets | None = None) -> None:
    """Raises `Invalid` with every fault, or `NotAvailable` for what does not exist yet. `listed`: for the webhook alone."""
    faults = caller_faults(body.caller)
    urls = (
        ("/agent/url", body.agent.url, ("wss", "ws"), None),
        ("/agent/fallback_url", body.agent.fallback_url, ("wss", "ws"), None),
        ("/webhook_url", body.webhook_url, ("https", "http"), listed),
    )
    for pointer, url, schemes, own in urls:
        if url is not None:
            try:
                check_url(url, schemes=schemes, local_targets=local_targets, listed=own)
            except AddressError as error:
                faults.append(FieldError(pointer=pointer, detail=f"{error.detail}. {error.fix}"))
    faults += [
        FieldError(pointer=f"/agent/parameters/{name}", detail="names that begin with voxplane_ are taken")
        for name in body.agent.parameters
        if name.startswith(RESERVED_PARAMETER)
    ]
    if body.regions.move_for_gain and body.caller.address is msgspec.UNSET:
        detail = "needs caller.address: whether another region is nearer is seen by the caller's network"
        faults.append(FieldError(pointer="/regions/move_for_gain", detail=detail))
    faults += unheard_faults(body)
    size = len(msgspec.json.encode(body.agent.parameters))
    if size > PARAMETERS_BYTES_MAX:
        faults.append(
            FieldError(
                pointer="/agent/parameters",
                detail=f"{size} bytes as JSON; they travel in the ticket, which has room for {PARAMETERS_BYTES_MAX}",
            )
        )
    rates_hz = DIALECT_RATES_HZ[body.agent.dialect]
    if body.agent.sample_rate is not msgspec.UNSET and body.agent.sample_rate not in rates_hz:
        allowed = ", ".join(str(rate) for rate in sorted(rates_hz))
        detail = f"the dialect {body.agent.dialect} has {allowed} Hz"
        faults.append(FieldError(pointer="/agent/sample_rate", detail=detail))
    if faults:
        raise Invalid("The call cannot be created so.", errors=faults)
    if body.caller.kind == "phone":
        raise NotAvailable(
            f"Callers of kind {body.caller.kind} are not available yet.",
            errors=[FieldError(pointer="/caller/kind", detail="websocket, webrtc and twilio are available")],
            fix="Use caller.kind `websocket`, `webrtc` or `twilio`.",
        )


def check_bounds(body: CreateCall, bounds: Bounds) -> CreateCall:
    """The create as its project and its key allow it; after `check_create`. Raises `Invalid`."""
    if bounds == UNBOUNDED:
        return body
    check_destination(normalised(body.caller.to) if body.caller.to else None, bounds)
    allowed_s = duration_allowed(body.max_duration_s, bounds, DURATION_DEFAULT_S)
    return (
        body if allowed_s == body.max_duration_s else msgspec.structs.replace(body, max_duration_s=allowed_s)
    )


def unheard_faults(body: CreateCall) -> list[FieldError]:
    """What needs more of the caller than there will be: a voice that is listened for, or a caller that can go elsewhere."""
    faults = []
    if body.turns.mode == "off":
        detail = (
            "needs turns.mode auto or push_to_talk: in the mode off nobody hears whether the caller speaks"
        )
        faults = [
            FieldError(pointer=f"/end_when/{name}", detail=detail)
            for name in ("idle_s", "silence_s", "monologue_s")
            if getattr(body.end_when, name) > 0
        ]
    if body.regions.move_for_gain and body.caller.kind == "twilio":
        detail = "a caller that speaks Twilio Media Streams cannot go to another edge"
        faults.append(FieldError(pointer="/regions/move_for_gain", detail=detail))
    return faults


def caller_faults(caller: CallerRequest) -> list[FieldError]:
    return [
        FieldError(
            pointer=f"/caller/{name}",
            detail="expected an E.164 number such as +14155550123, a tel: or a sip: URI",
        )
        for name, value in (("from", caller.from_), ("to", caller.to))
        if value is not None and normalised(value) is None
    ]


def normalised(text: str) -> str | None:
    """E.164 for numbers and tel: URIs (RFC 3966, without extensions), sip: URIs as they are; None for anything else."""
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower() if colon else ""
    if scheme in ("sip", "sips"):
        uri = f"{scheme}:{rest}"
        return uri if _SIP.fullmatch(uri) else None
    number = rest if scheme == "tel" else text
    if not _NUMBER.fullmatch(number):
        return None
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
