"""The chat-completions adapter against a server on this machine that speaks the protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.support.edges import until
from voxplane.agent import ChatCompletions, ChatError, Said, Tool, ToolCall, ToolUse
from voxplane.agent.chat_completions import ARGUMENTS_CHARS_MAX, Deltas, messages


async def look_up(arguments: dict[str, Any]) -> Any:
    return arguments


LOOK = Tool(
    name="look_up",
    description="The status of an order.",
    parameters={"type": "object", "properties": {"order": {"type": "string"}}},
    run=look_up,
)


class Server:
    """Answers each request with the next of `answers`: a status and the pieces of the body, one by one. `hold`: the body stays
    open after its pieces."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, list[bytes]]] = []
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.hold = False
        self.gone = 0
        self.url = ""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/"
        try:
            yield self
        finally:
            server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in head[1:])}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.asked.append((headers | {":path": head[0].split()[1]}, body))
        status, pieces = self.answers.pop(0)
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".encode()
        )
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if self.hold:
            await reader.read()
            self.gone += 1
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().run() as made:
        yield made


def chunk(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def called(index: int, **more: Any) -> bytes:
    function = {k: more.pop(k) for k in ("name", "arguments") if k in more}
    return chunk(tool_calls=[{"index": index, **more, "function": function}])


FINISHED = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


async def told(model: ChatCompletions, *conversation: Any, tools: tuple[Tool, ...] = ()) -> list[Any]:
    try:
        return [thought async for thought in model.answer(conversation or (Said("caller", "hi"),), tools)]
    finally:
        await model.aclose()


async def test_text_comes_as_it_is_written(server: Server) -> None:
    stream = (
        chunk(role="assistant", content="") + chunk(content="It is ") + chunk(content="on its way…") + DONE
    )
    server.answers = [(200, [stream[:25], stream[25:60], stream[60:]])]
    model = ChatCompletions(server.url, "small", key="s3cret", system="Be brief.", options={"temperature": 0})
    assert await told(model, tools=(LOOK,)) == ["It is ", "on its way…"]
    [(headers, body)] = server.asked
    assert headers[":path"] == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer s3cret"
    assert body == {
        "model": "small",
        "stream": True,
        "temperature": 0,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look_up",
                    "description": "The status of an order.",
                    "parameters": {"type": "object", "properties": {"order": {"type": "string"}}},
                },
            }
        ],
    }


async def test_tool_calls_are_put_together(server: Server) -> None:
    pieces = [
        chunk(content="One moment. "),
        called(0, id="c1", name="look_up", arguments=""),
        called(0, arguments='{"ord'),
        called(1, id="c2", name="look_up", arguments="{}"),
        called(0, arguments='er": "7"}'),
        FINISHED,
        DONE,
    ]
    server.answers = [(200, pieces)]
    assert await told(ChatCompletions(server.url, "m")) == [
        "One moment. ",
        ToolCall("look_up", {"order": "7"}, "c1"),
        ToolCall("look_up", {}, "c2"),
    ]
    assert "authorization" not in server.asked[0][0]


async def test_the_conversation_is_written_as_the_protocol_has_it() -> None:
    assert messages(
        "",
        [
            Said("caller", "where"),
            Said("agent", "It is in", interrupted=True),
            ToolUse("c1", "look_up", {"order": "7"}, {"day": "Monday"}, True),
            ToolUse("", "look_up", {}),
        ],
    ) == [
        {"role": "user", "content": "where"},
        {"role": "assistant", "content": "It is in…"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look_up", "arguments": '{"order": "7"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"day": "Monday"}'},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_3", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
            ],
        },
        {
            "role": "tool",
            "tool_call_id": "call_3",
            "content": '{"error": "it has not finished; whether it had its effect is not known"}',
        },
    ]


async def test_a_refusal_says_what_the_server_says(server: Server) -> None:
    server.answers = [(401, [b'{"error":{"message":"no such key"}}'])]
    with pytest.raises(ChatError, match="401 no such key") as raised:
        await told(ChatCompletions(server.url, "m"))
    assert raised.value.status == 401


@pytest.mark.parametrize(("statuses", "asked"), [([503, 200], 2), ([503, 503], 2), ([429], 1)])
async def test_a_busy_server_is_asked_once_more(server: Server, statuses: list[int], asked: int) -> None:
    server.answers = [(s, [chunk(content="Yes."), DONE] if s == 200 else [b"busy"]) for s in statuses]
    model = ChatCompletions(server.url, "m")
    if statuses[-1] == 200:
        assert await told(model) == ["Yes."]
    else:
        with pytest.raises(ChatError):
            await told(model)
    assert len(server.asked) == asked


async def test_nobody_there_is_an_error_of_the_connection() -> None:
    with pytest.raises(httpx.ConnectError):
        await told(ChatCompletions("http://127.0.0.1:9", "m"))


@pytest.mark.parametrize(
    "stream",
    [
        [chunk(content="It is")],
        [b"data: {\n\n"],
        [b"data: []\n\n"],
        [b'data: {"error":{"message":"overloaded"}}\n\n'],
        [called(0, name="look_up", arguments="{"), DONE],
        [called(0, name="look_up", arguments="[1]"), DONE],
        [called(0, name="look_up", arguments="x" * (ARGUMENTS_CHARS_MAX + 1)), DONE],
        [called(i, name="look_up") for i in range(17)],
    ],
    ids=["broken off", "no JSON", "no object", "error", "half", "no arguments", "long", "many"],
)
async def test_what_is_not_of_the_protocol_is_an_error(server: Server, stream: list[bytes]) -> None:
    server.answers = [(200, stream)]
    with pytest.raises(ChatError):
        await told(ChatCompletions(server.url, "m"))


@pytest.mark.parametrize(
    "odd",
    [b": keep-alive\n\n", b"event: x\n\n", b'data: {"choices":[]}\n\n', b'data: {"choices":[{"delta":null}]}\n\n',
     b'data: {"usage":{}}\n\n', b'data: {"choices":[{"delta":{"content":7,"tool_calls":[7]}}]}\n\n', b"data:\n\n"],
)  # fmt: skip
def test_what_says_nothing_is_passed_over(odd: bytes) -> None:
    deltas = Deltas()
    lines = (odd + FINISHED).decode().split("\n")
    assert [piece for line in lines for piece in deltas.feed(line)] == []
    assert deltas.calls() == []


async def test_an_answer_that_is_given_up_closes_its_connection(server: Server) -> None:
    server.answers, server.hold = [(200, [chunk(content="It is ")])], True
    model = ChatCompletions(server.url, "m")
    stream: Any = model.answer([Said("caller", "hi")], ())
    assert await anext(stream) == "It is "
    waiting = asyncio.create_task(anext(stream))
    done: Callable[[], bool] = lambda: server.gone == 1  # noqa: E731
    await asyncio.sleep(0)
    waiting.cancel()
    await until(done, "the connection is closed")
    await model.aclose()
