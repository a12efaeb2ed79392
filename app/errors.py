"""Every way a request can be refused: classes with a stable code, a status, whether to retry, and how to mend it.

Decides the vocabulary. Leaves writing them as RFC 9457 problem+json to `app.problems`.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One fault in a request body; `pointer` is an RFC 6901 JSON pointer."""

    pointer: str
    detail: str


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that was reached: `quota` at once, full again after `window_s` (0: no window, it is a number of things that are
    there); `wait_s` until one more is allowed."""

    name: str
    quota: int
    window_s: int
    wait_s: int = 1

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 writes them."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.quota}'
            + (f";w={self.window_s}" if self.window_s else ""),
            "RateLimit": f'"{self.name}";r=0;t={self.wait_s}',
        }


class VoxplaneError(Exception):
    """Base of everything the API refuses. `retry_after_s`: send the same again after so many seconds.
    `rate`: the limit that was reached, where it is one."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"
    fix: ClassVar[str] = "Try again; if it stays, report the request id."

    def __init__(
        self,
        detail: str = "",
        *,
        fix: str | None = None,
        errors: list[FieldError] | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        extra: dict[str, object] | None = None,
        rate: Rate | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.mend = fix or self.fix
        self.errors = errors or []
        self.stable_code = code or self.code
        self.retry_after_s = rate.wait_s if rate is not None and retry_after_s is None else retry_after_s
        self.rate = rate
        self.extra = extra or {}

    def headers(self) -> dict[str, str]:
        """When to try again, and what was reached: of every answer that says no, whatever its form."""
        waits = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s is not None else {}
        return waits | (self.rate.headers() if self.rate is not None else {})


class BadRequest(VoxplaneError):
    code, status, title = "bad_request", 400, "The request is malformed"
    fix = "Correct the request and send it again."


class Invalid(VoxplaneError):
    code, status, title = "invalid", 422, "The request was understood and cannot be carried out"
    fix = "Correct the fields named in `errors`."


class ResidencyUnsatisfiable(Invalid):
    code, title = "residency_unsatisfiable", "No region satisfies the call's residency"
    fix = "Allow one of the regions in `allowed_regions`, or another jurisdiction."


class NotAvailable(Invalid):
    code, title = "not_available", "This is not available yet"
    fix = "Use one of the kinds that are available."


class Unauthenticated(VoxplaneError):
    code, status, title = "unauthenticated", 401, "No valid credential"
    fix = "Send `Authorization: Bearer vx_…` with a key of the project."


class Forbidden(VoxplaneError):
    code, status, title = "forbidden", 403, "This is not allowed"
    fix = "Use a key whose role or scopes allow it."


class NotFound(VoxplaneError):
    code, status, title = "not_found", 404, "There is no such thing here"
    fix = "Check the id, and that the key belongs to the same project."


class Conflict(VoxplaneError):
    code, status, title = "conflict", 409, "This contradicts the present state"
    fix = "Read the present state and decide again."


class PreconditionFailed(VoxplaneError):
    code, status, title = "precondition_failed", 412, "It has changed since you read it"
    fix = "Read it again and repeat with its new ETag."


class PreconditionRequired(VoxplaneError):
    code, status, title = "precondition_required", 428, "A condition is required"
    fix = "Send If-Match with the ETag you read."


class Gone(VoxplaneError):
    code, status, title = "gone", 410, "This is no longer kept"
    fix = "Start again without the cursor."


class Erased(Gone):
    code, title = "call_erased", "The call was erased"
    fix = "Nothing of it but its times and counts is left; create a new call."


class TooLarge(VoxplaneError):
    code, status, title = "too_large", 413, "The body is too large"
    fix = "Send at most 256 KiB."


class QuotaExceeded(VoxplaneError):
    code, status, title = "quota_exceeded", 429, "Too much at once"
    fix = "Wait for Retry-After and send the same again."


class Unavailable(VoxplaneError):
    code, status, title = "unavailable", 503, "Not possible at the moment"
    fix = "Send the same again after Retry-After."
