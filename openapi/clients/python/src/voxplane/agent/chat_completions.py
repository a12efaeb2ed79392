"""A `LanguageModel` over the chat-completions protocol with streaming, which many model servers speak, hosted and local ones. By
protocol and not by anybody's package: HTTP and server-sent events.

Asks ``POST {base_url}/chat/completions`` with ``"stream": true``. Reads the text and the tool calls of the first choice's deltas.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from voxplane.agent.parts import Entry, Said, Tool, ToolCall, ToolUse
from voxplane.errors import VoxplaneError
from voxplane.sse import Lines

CONNECT_S, READ_S = 5.0, 60.0
TRIES = 2
AGAIN = frozenset({502, 503, 504})
TOOL_CALLS_MAX = 16
ARGUMENTS_CHARS_MAX = 64 * 1024
ERROR_BYTES_MAX = 4 * 1024
NOT_DONE = {"error": "it has not finished; whether it had its effect is not known"}
CUT = "…"
"""Behind what the caller has heard of an answer that it has cut."""


class ChatError(VoxplaneError):
    """The server refused, or gave what is not of the protocol. `status`: the HTTP status, 0 where there was an answer that broke off
    or cannot be read."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status} {detail}".strip())
        self.status = status
        self.detail = detail


class ChatCompletions:
    """`base_url`: as in ``https://models.example.com/v1``. `key`: sent as a bearer token. `system`: the prompt. `options`: more
    fields of the request, such as ``temperature``. `client`: one of your own, which you close; else one is made and kept, until
    `aclose`.

    A server that refuses the connection, or says 502, 503 or 504, is asked once more, as long as nothing has come of it. Raises
    `ChatError`, and `httpx.HTTPError` where the connection fails."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key: str | None = None,
        system: str = "",
        options: Mapping[str, Any] | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._system = system
        self._options = dict(options or {})
        self._client = client
        self._own: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    async def answer(
        self, conversation: Sequence[Entry], tools: Sequence[Tool]
    ) -> AsyncIterator[str | ToolCall]:
        body = self._options | {
            "model": self._model,
            "stream": True,
            "messages": messages(self._system, conversation),
        }
        if tools:
            body["tools"] = [function(tool) for tool in tools]
        for left in range(TRIES - 1, -1, -1):
            begun = False
            try:
                async for thought in self._ask(body):
                    begun = True
                    yield thought
                return
            except httpx.ConnectError:
                if begun or not left:
                    raise
            except ChatError as error:
                if begun or not left or error.status not in AGAIN:
                    raise

    async def _ask(self, body: dict[str, Any]) -> AsyncIterator[str | ToolCall]:
        client = self._client or self._made()
        async with client.stream("POST", self._url, json=body, headers=self._headers) as response:
            if response.status_code != httpx.codes.OK:
                raise ChatError(response.status_code, await _detail(response))
            lines, deltas = Lines(), Deltas()
            async for chunk in response.aiter_bytes():
                for line in lines.feed(chunk):
                    for piece in deltas.feed(line):
                        yield piece
                if deltas.over:
                    break
        for call in deltas.calls():
            yield call

    def _made(self) -> httpx.AsyncClient:
        if self._own is None:
            self._own = httpx.AsyncClient(timeout=httpx.Timeout(READ_S, connect=CONNECT_S))
        return self._own


class Deltas:
    """What comes, line by line: text at once, tool calls when they are complete. Pure. `over`: the server has said that this is all.
    Raises `ChatError`."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._finished = False
        self.over = False

    def feed(self, line: str) -> Iterator[str]:
        name, _, value = line.partition(":")
        value = value.strip()
        if name != "data" or not value:
            return
        if value == "[DONE]":
            self.over = True
            return
        chunk = _json(value)
        if not isinstance(chunk, dict):
            raise ChatError(0, "a chunk that is no object")
        if chunk.get("error"):
            raise ChatError(0, _said(chunk))
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        self._finished = self._finished or bool(choice.get("finish_reason"))
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for piece in delta.get("tool_calls") or ():
            self._take(piece)
        content = delta.get("content")
        if isinstance(content, str) and content:
            yield content

    def calls(self) -> list[ToolCall]:
        """At the end of the stream."""
        if not (self.over or self._finished):
            raise ChatError(0, "the answer broke off")
        found = []
        for call in self._calls.values():
            arguments = _json(call.arguments) if call.arguments.strip() else {}
            if not isinstance(arguments, dict):
                raise ChatError(0, f"arguments of {call.name} that are no object")
            found.append(ToolCall(call.name, arguments, call.id))
        return found

    def _take(self, piece: object) -> None:
        if not isinstance(piece, dict):
            return
        index = piece.get("index")
        call = self._calls.setdefault(index if isinstance(index, int) else len(self._calls), _Call())
        function = piece.get("function")
        given = function if isinstance(function, dict) else {}
        call.id = call.id or str(piece.get("id") or "")
        call.name = call.name or str(given.get("name") or "")
        call.arguments += str(given.get("arguments") or "")
        if len(self._calls) > TOOL_CALLS_MAX or len(call.arguments) > ARGUMENTS_CHARS_MAX:
            raise ChatError(0, "more tool calls, or longer arguments, than can be")


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


def function(tool: Tool) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": described}


def messages(system: str, conversation: Sequence[Entry]) -> list[dict[str, Any]]:
    """As the protocol has it: a tool is a message that calls it and one that holds its result."""
    made: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for number, entry in enumerate(conversation):
        match entry:
            case Said("caller", text):
                made.append({"role": "user", "content": text})
            case Said("agent", text, interrupted):
                made.append({"role": "assistant", "content": text + (CUT if interrupted else "")})
            case ToolUse(id_, name, arguments, result, done):
                id_ = id_ or f"call_{number}"
                called = {"name": name, "arguments": json.dumps(dict(arguments))}
                made += [
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"id": id_, "type": "function", "function": called}],
                    },
                    {
                        "role": "tool",
                        "tool_call_id": id_,
                        "content": json.dumps(result if done else NOT_DONE),
                    },
                ]
    return made


async def _detail(response: httpx.Response) -> str:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > ERROR_BYTES_MAX:
            break
    try:
        return _said(json.loads(body))
    except (ValueError, RecursionError):
        return ""


def _said(body: object) -> str:
    """The server's own words of what is wrong."""
    error = body.get("error") if isinstance(body, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return said[:400] if isinstance(said, str) else ""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ChatError(0, "what came is not JSON") from None
