"""A call over Twilio's REST API, for programs that hang up there. Decides nothing: parses, asks `HangUps`, answers.

Twilio's clients take another base URL. The account is the project's (`accountSid` of its sockets), the token one of its keys.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.params import FromPath, URLEncodedBody

from app.calls.machine import FINAL
from app.calls.store import StoredCall
from app.calls.twilio_shapes import API_VERSION, ChangeTwilioCall, TwilioCall, twilio_call, twilio_error
from app.control import Control
from app.dependencies import ControlIn
from app.errors import NotFound, Unauthenticated
from app.exchange import exchange_of
from app.problems import EXCEPTION_HANDLERS, answer_to
from app.projects.auth import Principal
from app.projects.credentials import authorization_of
from regions.wire import ids
from regions.wire.sids import SidOfCall, account_sid, read_call_sid

PATH = f"/{API_VERSION}/Accounts/{{account:str}}/Calls/{{file:str}}"
SUFFIX = ".json"
LOGIN = "Use the account sid that your sockets are given, and as its token a key of the project (vx_live_… or vx_test_…)."
Asked = Request[Any, Any, Any]


def _as_twilio(request: Asked, error: Exception) -> Response[dict[str, Any]]:
    """What any route answers to it, in Twilio's form."""
    answer = answer_to(request, error)
    headers = {k: v for k, v in answer.headers.items() if k.lower() != "www-authenticate"}
    status = 400 if answer.status_code == 422 else answer.status_code
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="Twilio API"'
    return Response(twilio_error(status, answer.content["detail"]), status_code=status, headers=headers)


HANDLERS: Any = dict.fromkeys(EXCEPTION_HANDLERS, _as_twilio)


@get(
    PATH,
    operation_id="twilioGetCall",
    tags=["twilio"],
    summary="Read a call, as Twilio's API does",
    security=[{"basic": []}],
    exception_handlers=HANDLERS,
)
async def twilio_get(
    account: FromPath[str], file: FromPath[str], request: Asked, control: ControlIn
) -> TwilioCall:
    """A call that has ended is not there any more: 404 with code 20404."""
    control, principal = await _asking(request, control, "calls:read")
    call, _ = await _found(control, principal, account, file)
    return twilio_call(call, file.removesuffix(SUFFIX))


@post(
    PATH,
    operation_id="twilioEndCall",
    tags=["twilio"],
    summary="End a call, as Twilio's API does",
    status_code=200,
    security=[{"basic": []}],
    exception_handlers=HANDLERS,
)
async def twilio_end(
    account: FromPath[str],
    file: FromPath[str],
    data: URLEncodedBody[ChangeTwilioCall],
    request: Asked,
    control: ControlIn,
) -> TwilioCall:
    """By the socket that the call sid was given to: 404 with code 20404 where that is not the one which the call has now, and
    the call goes on. Answered once the end is stored, or after two seconds without one."""
    control, principal = await _asking(request, control, "calls:operate")
    call, named = await _found(control, principal, account, file)
    ended = await control.hang_ups.hang_up(call, named.socket)
    if ended is None:
        raise _not_found(account, file)
    return twilio_call(ended, file.removesuffix(SUFFIX))


async def _asking(request: Asked, home: Control, scope: str) -> tuple[Control, Principal]:
    """The services of the key's cell, and whose key it is. Raises `Unauthenticated`, `Forbidden`."""
    account, secret = _basic(authorization_of(request) or "")
    authorization = f"Bearer {secret}"
    control = home.cells.asked_by(authorization)
    principal = await control.auth.project(authorization, request.scope)
    of_project = account_sid(ids.encode(ids.PROJECT, principal.project_id))
    if not hmac.compare_digest(account.encode(), of_project.encode()):
        raise Unauthenticated("The user name is not the account of this key.", fix=LOGIN)
    exchange = exchange_of(request.scope)
    if exchange is not None:
        exchange.by(principal, control.request_log)
    principal.require(scope)
    return control, principal


def _basic(authorization: str) -> tuple[str, str]:
    """User name and password (RFC 7617)."""
    scheme, _, given = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        user = colon = password = ""
    if scheme.lower() != "basic" or not colon or not password.isascii():
        raise Unauthenticated("The request carries no account and token.", fix=LOGIN)
    return user, password


async def _found(
    control: Control, principal: Principal, account: str, file: str
) -> tuple[StoredCall, SidOfCall]:
    named = read_call_sid(file.removesuffix(SUFFIX))
    mine = account == account_sid(ids.encode(ids.PROJECT, principal.project_id))
    call_id: UUID | None = named.call if named is not None and mine else None
    call = await control.calls.get(principal, call_id) if call_id is not None else None
    if call is None or named is None or call.state in FINAL:
        raise _not_found(account, file)
    return call, named


def _not_found(account: str, file: str) -> NotFound:
    return NotFound(f"The requested resource /{API_VERSION}/Accounts/{account}/Calls/{file} was not found")


ROUTES: list[Any] = [twilio_get, twilio_end]
