"""A call as Twilio's REST API writes it (twilio.com/docs/voice/api/call-resource), and its errors. Pure.

Only what there is here: no price, no number, no recordings. Times are RFC 2822, in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal

import msgspec

from app.calls.store import StoredCall
from regions.wire import ids
from regions.wire.sids import account_sid

API_VERSION = "2010-04-01"
STATUSES = {"in_progress": "in-progress", "reconnecting": "in-progress", "no_answer": "no-answer"}
UNAUTHENTICATED, UNKNOWN_PARAMETERS = 20003, 20001
CODES = {401: UNAUTHENTICATED, 403: UNAUTHENTICATED, 404: 20404, 405: 20004, 429: 20429, 503: 20503}
"""Of refusals, by their HTTP status; of others see `code_of`."""


class ChangeTwilioCall(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that mean something here; Twilio's others are not looked at. `Status` ends the call."""

    Status: Literal["completed", "canceled"]


class TwilioCall(msgspec.Struct, frozen=True, kw_only=True):
    """`sid`: as it was asked for. `duration`: seconds from the answer to the end."""

    sid: str
    account_sid: str
    status: str
    to: str
    to_formatted: str
    from_: str = msgspec.field(name="from")
    from_formatted: str
    direction: str
    date_created: str
    date_updated: str
    start_time: str | None
    end_time: str | None
    duration: str | None
    uri: str
    subresource_uris: dict[str, str] = {}
    api_version: str = API_VERSION
    annotation: str | None = None
    answered_by: str | None = None
    caller_name: str | None = None
    forwarded_from: str | None = None
    group_sid: str | None = None
    parent_call_sid: str | None = None
    phone_number_sid: str | None = None
    price: str | None = None
    price_unit: str = "USD"
    queue_time: str = "0"
    trunk_sid: str | None = None


class TwilioError(msgspec.Struct, frozen=True, kw_only=True):
    """`more_info`: Twilio's page about the code."""

    code: int
    message: str
    more_info: str
    status: int


def twilio_call(call: StoredCall, sid: str) -> TwilioCall:
    account = account_sid(ids.encode(ids.PROJECT, call.project_id))
    caller = call.request.caller
    to, from_ = caller.to or "", caller.from_ or ""
    seconds = (
        str(round((call.ended_at - call.answered_at).total_seconds()))
        if call.answered_at is not None and call.ended_at is not None
        else None
    )
    return TwilioCall(
        sid=sid,
        account_sid=account,
        status=STATUSES.get(call.state, call.state),
        to=to,
        to_formatted=to,
        from_=from_,
        from_formatted=from_,
        direction="inbound",
        date_created=_rfc2822(call.created_at),
        date_updated=_rfc2822(call.ended_at or call.answered_at or call.created_at),
        start_time=_rfc2822(call.answered_at) if call.answered_at else None,
        end_time=_rfc2822(call.ended_at) if call.ended_at else None,
        duration=seconds,
        uri=f"/{API_VERSION}/Accounts/{account}/Calls/{sid}.json",
    )


def code_of(status: int) -> int:
    return CODES.get(status, UNKNOWN_PARAMETERS if status < 500 else 20_000 + status)


def twilio_error(status: int, message: str) -> dict[str, Any]:
    code = code_of(status)
    more = f"https://www.twilio.com/docs/errors/{code}"
    return msgspec.to_builtins(  # type: ignore[no-any-return]
        TwilioError(code=code, message=message, more_info=more, status=status)
    )


def _rfc2822(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC))
