"""What each route is asked, and how an answer is read. Pure: `client` sends these, once synchronously and once for asyncio."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from voxplane.attempts import Next, after
from voxplane.errors import ApiError
from voxplane.trust import why_broken

Json = dict[str, Any]
SAFE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
REPEATABLE_ENDS = ("/end", "/ticket", "/probes", "/placements/preview")
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
STREAM_PATH = "/v1/events/stream"
TIMEOUT_S = 10.0
TEST_WITHIN_S = 60.0
"""An endpoint may take 15 s for a handshake and as long for the example, and the service waits a little for its rate."""
TEST_END = "/test"
TICKET_WITHIN_S = 2.0
"""A caller without an owner waits for this answer: an instance that hangs is passed over soon."""
PROBES_WITHIN_S = 2.0
NOT_THE_API = {
    "code": "not_the_api",
    "detail": "What answered is a web page, and not the API.",
    "fix": "Check the base URL, and which proxy stands before it.",
}
LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")
"""A proxy of the environment cannot reach these."""


def url_list(given: str | list[str]) -> list[str]:
    urls = [given] if isinstance(given, str) else list(given)
    if not urls:
        raise ValueError("give at least one base URL, such as https://api.example.com")
    for url in urls:
        if not url.lower().startswith(("https://", "http://")):
            raise ValueError(f"{url!r} is no base URL: write it like https://api.example.com")
    return [u.rstrip("/") for u in urls]


def authorization_of(api_key: str) -> dict[str, str]:
    if not (api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key != ""):
        raise ValueError("this is no API key: give it whole, as it was shown when it was made")
    return {"Authorization": f"Bearer {api_key}"}


@dataclass(frozen=True, slots=True)
class Request:
    """One logical request: the same headers, and so the same Idempotency-Key, in every attempt. `within_s`: for each attempt,
    where it is not the client's own."""

    method: str
    path: str
    json: Any = None
    params: Json = field(default_factory=dict)
    idempotency_key: str | None = None
    within_s: float | None = None
    if_match: str | None = None
    """The version that is to be changed, where a route asks for one."""

    @property
    def sent(self) -> Json:
        """As httpx takes it, apart from the method and the URL."""
        named = {"Idempotency-Key": self.idempotency_key, "If-Match": self.if_match}
        sent: Json = {
            "json": self.json,
            "params": {k: v for k, v in self.params.items() if v is not None},
            "headers": {name: value for name, value in named.items() if value is not None},
        }
        within_s = self.within_s
        if within_s is None and self.method == "POST" and self.path.endswith(TEST_END):
            within_s = TEST_WITHIN_S
        return sent if within_s is None else sent | {"timeout": within_s}

    @property
    def safe(self) -> bool:
        """May be sent again although it may have arrived."""
        return (
            self.method in SAFE_METHODS
            or self.idempotency_key is not None
            or self.path.endswith(REPEATABLE_ENDS)
        )


class Answer:
    """An HTTP response, read for what decides the next step."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.retry_after_s: float | None = None
        text = response.headers.get("retry-after", "")
        if text.isascii() and text.isdigit():
            self.retry_after_s = float(text)
        self.json: Any = None
        if response.content:
            try:
                self.json = response.json()
            except ValueError:
                self.json = {"detail": response.text[:200]}
        self.is_page = response.headers.get("content-type", "").lower().startswith("text/html")
        self.code = str(self.json.get("code", "")) if isinstance(self.json, dict) else ""

    def result(self) -> Any:
        if not 200 <= self.status < 300:
            raise ApiError(self.status, self.json if isinstance(self.json, dict) else {}, self.retry_after_s)
        if self.is_page:
            raise ApiError(self.status, NOT_THE_API)
        return self.json


class Attempts:
    """The tries of one request over several base URLs. After each, tell it what came; `over` says when to stop."""

    def __init__(self, wanted: Request, urls: list[str], first: int) -> None:
        self._wanted, self._urls = wanted, urls
        self._number = 0
        self.url_index = first
        self.causes: list[str] = []

    @property
    def url(self) -> str:
        return self._urls[self.url_index] + self._wanted.path

    def answered(self, answer: Answer) -> Next:
        return self._next(
            status=answer.status, safe=self._wanted.safe, retry_after_s=answer.retry_after_s, code=answer.code
        )

    def broke(self, error: httpx.TransportError) -> Next:
        self.causes.append(f"{self._urls[self.url_index]}: {why_broken(error)}")
        return self._next(status=None, safe=self._wanted.safe or isinstance(error, NOT_SENT))

    def _next(self, **seen: Any) -> Next:
        following = after(self._number, self.url_index, len(self._urls), **seen)
        self._number += 1
        if following.url_index is not None:
            self.url_index = following.url_index
        return following


# --- the routes ------------------------------------------------------------------------------------------------


def create_call(
    agent: Json | str,
    *,
    latencies: list[Any] | None,
    idempotency_key: str | None,
    max_duration_s: int,
    **more: Any,
) -> Request:
    """`more` goes into the body where it is given."""
    body: Json = {
        "agent": {"url": agent} if isinstance(agent, str) else agent,
        "max_duration_s": max_duration_s,
    }
    if latencies:
        body["latencies"] = [entry if isinstance(entry, dict) else entry.to_json() for entry in latencies]
    body |= {name: value for name, value in more.items() if value}
    return Request("POST", "/v1/calls", body, idempotency_key=idempotency_key or str(uuid4()))


def get_call(call_id: str) -> Request:
    return Request("GET", f"/v1/calls/{call_id}")


def preview_placement(agent: Json | str, wanted: Json) -> Request:
    given: Json = {"latencies": None, "max_duration_s": 3600, "idempotency_key": None} | wanted
    return Request("POST", "/v1/placements/preview", create_call(agent, **given).json)


def list_calls(filters: Json, cursor: str | None) -> Request:
    return Request("GET", "/v1/calls", params=filters | {"cursor": cursor})


def end_call(call_id: str) -> Request:
    return Request("POST", f"/v1/calls/{call_id}/end")


def new_ticket(call_id: str, old_ticket: str) -> Request:
    return Request("POST", f"/v1/calls/{call_id}/ticket", {"ticket": old_ticket}, within_s=TICKET_WITHIN_S)


def events_of(call_id: str, after_seq: int) -> Request:
    return Request("GET", f"/v1/calls/{call_id}/events", params={"after": after_seq})


def stream_params(
    types: list[str] | None,
    call_id: str | None,
    metadata: dict[str, str] | None,
    *,
    volatile: bool,
    since: str | None = None,
    until: str | None = None,
) -> Json:
    """As the query of a stream or a list."""
    params: Json = {"types": types, "call_id": call_id, "volatile": "true" if volatile else None}
    params |= {"since": since, "until": until}
    params |= {f"metadata.{name}": value for name, value in (metadata or {}).items()}
    return {name: value for name, value in params.items() if value}


def list_events(params: Json, cursor: str | None) -> Request:
    return Request("GET", "/v1/events", params=params | {"cursor": cursor, "limit": 200})


def conversation(call_id: str, window: dict[str, int | None]) -> Request:
    return Request("GET", f"/v1/calls/{call_id}/conversation", params=window)


def write_conversation(call_id: str, entry: Json, key: str | None) -> Request:
    """A fresh key where none is given: what this library sends again is then still written once."""
    key = key or entry.get("key") or str(uuid4())
    return Request("POST", f"/v1/calls/{call_id}/conversation", entry, idempotency_key=key)


def turn(role: str, text: str) -> Json:
    return {"type": "turn", "role": role, "text": text}


def tool(call_id: str, key: str) -> Request:
    return Request("GET", f"/v1/calls/{call_id}/tools/{quote(key, safe='')}")


def regions() -> Request:
    return Request("GET", "/v1/regions")


def probes(latencies: list[Any]) -> Request:
    """A caller waits for it: what does not answer soon is done without."""
    return Request(
        "POST",
        "/v1/probes",
        {"latencies": [entry.to_json() for entry in latencies]},
        within_s=PROBES_WITHIN_S,
    )


def create_webhook(url: str, types: list[str] | None) -> Request:
    return Request("POST", "/v1/webhooks", {"url": url} | ({"types": types} if types else {}))


def try_webhook(webhook_id: str, type_: str) -> Request:
    return Request("POST", f"/v1/webhooks/{webhook_id}{TEST_END}", {"type": type_})
