"""What can go wrong, as the caller of this library sees it."""

from __future__ import annotations

from typing import Any


class VoxplaneError(Exception):
    """Base of all errors of this library."""


class Unavailable(VoxplaneError):
    """None of the base URLs gave an answer that counts. `causes` has one line per URL tried."""

    def __init__(self, causes: list[str]) -> None:
        super().__init__("; ".join(causes) or "no base URL was given")
        self.causes = causes


class ApiError(VoxplaneError):
    """The API refused the request (RFC 9457). `fix` says how to mend it; `problem` is all that was said. `retry_after_s`: in how many
    seconds it may be asked again, where it said so."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        self.problem = problem
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", ""))
        self.fix = str(problem.get("fix", ""))
        self.errors: list[dict[str, Any]] = problem.get("errors") or []
        self.request_id = str(problem.get("request_id", ""))
        named = "; ".join(f"{e.get('pointer')}: {e.get('detail')}" for e in self.errors)
        parts = (self.detail, named and named.rstrip(".") + ".", self.fix)
        super().__init__(" ".join(part for part in (f"{status} {self.code}:", *parts) if part))


class CallLost(VoxplaneError):
    """No edge could be reached any more."""


class CallRefused(VoxplaneError):
    """No edge would have this caller. `code` is the edge's."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(f"{code}: {detail} {fix}".strip())
        self.code = code
