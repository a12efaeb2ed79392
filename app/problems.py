"""Every error as RFC 9457 problem+json. The one mapper from exceptions to answers; no traceback and no input leaves it."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    SerializationException,
    ValidationException,
)
from litestar.types import Send
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.bodies import UNFIT, MalformedJson, UnsupportedMediaType
from app.connection import is_away, sqlstate, trouble_of
from app.errors import (
    BadRequest,
    FieldError,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    VoxplaneError,
)
from app.pointers import fault, invalid_from, pointer
from app.telemetry import request_id

log = structlog.get_logger()

PROBLEM = "application/problem+json"
FRAMES_MAX = 8
DETAILS = {
    "": "The database cannot be reached at the moment.",
    "not_replicated": "What was asked may have been written, and is not known to be safe: nothing is acknowledged.",
    "read_only": "The database takes no writes at the moment.",
    "disk_full": "The database has no room left.",
    "no_connections": "The database has as many connections as it takes.",
    "no_primary": "No database server takes writes at the moment.",
}
BAD_VALUE = "22"
PARAMETERS = {"with_state": "state", "in_state": "state", "shape": "format"}
"""Query parameters whose handlers call them otherwise."""

BROKEN_OFF = "client disconnected prematurely"
"""What the framework says, as a failure of the server, where a body ends before its end."""

Handler = Any


class MethodNotAllowed(VoxplaneError):
    code, status, title = "method_not_allowed", 405, "This resource does not take that method"
    fix = "Use one of the methods in the Allow header."


def problem_body(error: VoxplaneError) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": f"urn:voxplane:problem:{error.stable_code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.stable_code,
        "errors": msgspec.to_builtins(error.errors),
        "request_id": request_id.get(),
        "fix": error.mend,
    }
    return body | error.extra


def problem(error: VoxplaneError, headers: Mapping[str, str] | None = None) -> Response[dict[str, Any]]:
    sent = dict(headers or {}) | error.headers()
    if isinstance(error, Unauthenticated):
        sent["WWW-Authenticate"] = 'Bearer realm="voxplane"'
    return Response(problem_body(error), status_code=error.status, media_type=PROBLEM, headers=sent)


def _from_voxplane(_: Request[Any, Any, Any], error: VoxplaneError) -> Response[Any]:
    return problem(error)


def _from_validation(request: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
    unfit: Invalid | None = request.scope.get(UNFIT)  # type: ignore[assignment]
    if unfit is not None:
        return problem(unfit)
    faults: list[FieldError] = []
    for entry in error.extra if isinstance(error.extra, list) else []:
        key = str(entry.get("key", ""))
        if entry.get("source") == "body" or key == "data":
            key = key.removeprefix("data").removeprefix(".")
        found = fault(
            str(entry.get("message", "")), within=pointer("." + PARAMETERS.get(key, key)) if key else ""
        )
        if found.detail == "'data'":
            found = FieldError(pointer=found.pointer, detail="a body is required")
        faults.append(found)
    return problem(Invalid("The request does not fit.", errors=faults))


def _from_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    cause = error.__cause__
    if isinstance(cause, msgspec.ValidationError):
        return problem(invalid_from(str(cause)))
    if isinstance(cause, msgspec.DecodeError | UnicodeDecodeError | SerializationException):
        inner = cause.__cause__
        if isinstance(inner, msgspec.ValidationError):
            return problem(invalid_from(str(inner)))
        return problem(MalformedJson())
    if isinstance(error, NotFoundException):
        return problem(
            NotFound(
                "There is no such route.",
                fix="GET /openapi.json lists the routes; the console is at /console.",
            )
        )
    if isinstance(error, MethodNotAllowedException):
        return problem(MethodNotAllowed(), error.headers)
    if error.status_code == 413:
        return problem(TooLarge())
    if error.status_code == 415:
        return problem(UnsupportedMediaType())
    if error.detail == BROKEN_OFF:
        return problem(BadRequest("The connection ended before the body did."))
    if error.status_code < 500:
        return problem(BadRequest(error.detail if error.status_code != 400 else "The request is malformed."))
    return _unexpected(request, error)


def _from_serialization(_: Request[Any, Any, Any], error: SerializationException) -> Response[Any]:
    cause = error.__cause__
    if isinstance(cause, msgspec.ValidationError):
        return problem(invalid_from(str(cause)))
    return problem(MalformedJson())


def _from_database(_: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    trouble = trouble_of(error)
    log.warning("database.unavailable", error=type(error).__name__, trouble=trouble)
    return problem(
        Unavailable(
            DETAILS.get(trouble, DETAILS[""]), retry_after_s=1, extra={"database": trouble or "unreachable"}
        )
    )


def _from_postgres(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """By the class of the SQLSTATE, which the driver and the toolkit both carry."""
    if is_away(error):
        return _from_database(request, error)
    state = sqlstate(error)
    if state.startswith(BAD_VALUE):
        log.info("database.value_refused", sqlstate=state)
        return problem(BadRequest("A value is out of range or contains a character that cannot be stored."))
    return _unexpected(request, error)


def _unexpected(_: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The line says where, and not what: messages of the database quote the values they were given."""
    frames = traceback.format_tb(error.__traceback__)[-FRAMES_MAX:]
    log.error(
        "request.failed",
        error=type(error).__name__,
        sqlstate=sqlstate(error),
        frames="".join(frames),
    )
    return problem(VoxplaneError("This should not have happened."))


async def send_problem(error: VoxplaneError, send: Send) -> None:
    """For those who stand before the framework."""
    body = msgspec.json.encode(problem_body(error))
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


EXCEPTION_HANDLERS: dict[int | type[Exception], Handler] = {
    VoxplaneError: _from_voxplane,
    ValidationException: _from_validation,
    SerializationException: _from_serialization,
    HTTPException: _from_http,
    asyncpg.PostgresError: _from_postgres,
    asyncpg.InterfaceError: _from_database,
    asyncpg.InternalClientError: _from_database,
    DBAPIError: _from_postgres,
    PoolTimeout: _from_database,
    TimeoutError: _from_database,
    OSError: _from_database,
    Exception: _unexpected,
}


def answer_to(request: Request[Any, Any, Any] | None, error: Exception) -> Any:
    """The `Response` that `EXCEPTION_HANDLERS` have for it."""
    handler = next(h for kind in type(error).__mro__ if (h := EXCEPTION_HANDLERS.get(kind)) is not None)
    return handler(request, error)


async def send_error(error: Exception, send: Send) -> None:
    """The same for those who stand before the framework."""
    status, headers, body = _answer(error)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse_socket(error: Exception, send: Callable[[Any], Awaitable[None]]) -> None:
    """The same in answer to the handshake of a WebSocket, which must not have been accepted: a close before that is an empty 403,
    whatever was wrong."""
    token = request_id.set(uuid4().hex)
    try:
        status, headers, body = _answer(error)
        headers.append((b"request-id", request_id.get().encode()))
    finally:
        request_id.reset(token)
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def _answer(error: Exception) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    answer = answer_to(None, error)
    body = msgspec.json.encode(answer.content)
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(k.lower().encode(), v.encode()) for k, v in answer.headers.items()]
    return answer.status_code, headers, body


JSON = MediaType.JSON
