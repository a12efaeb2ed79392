"""The conversation over HTTP. Decides nothing but the limits of what may be asked."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from app.calls.conversation import WAIT_MS_MAX, Asked
from app.calls.conversation_shapes import Conversation, ToolView, WriteEntry, WrittenEntry
from app.dependencies import ControlIn, PrincipalIn
from app.errors import BadRequest
from app.ids import parse
from regions.wire import ids
from regions.wire.conversation import WINDOW_TOKENS_MAX, WINDOW_TURNS_MAX

SEQ_MAX = (1 << 31) - 2
WAIT_MS_DEFAULT = 1_000


@get(
    "/v1/calls/{call_id:str}/conversation",
    operation_id="getConversation",
    tags=["conversation"],
    summary="What was said: the newest turns, never older than asked for",
)
async def get_conversation(
    call_id: FromPath[str],
    control: ControlIn,
    principal: PrincipalIn,
    turns: Annotated[
        int | None, QueryParameter(description="At most so many turns, the newest; 1 to 200.", required=False)
    ] = None,
    tokens: Annotated[
        int | None, QueryParameter(description="At most so many tokens, by estimate; 1 or more.", required=False)
    ] = None,
    before_seq: Annotated[
        int | None, QueryParameter(description="Only what was said before this `seq`.", required=False)
    ] = None,
    min_seq: Annotated[
        int, QueryParameter(description="Nothing older than this: 409 `not_yet` until it is durable.", required=False)
    ] = 0,
    wait_ms: Annotated[
        int | None,
        QueryParameter(description="How long to wait for `min_seq`; 1000 where it is given.", required=False),
    ] = None,
) -> Conversation:  # fmt: skip
    principal.require("conversation:read")
    asked = Asked(
        turns=_limited("turns", turns, WINDOW_TURNS_MAX) or WINDOW_TURNS_MAX,
        tokens=_limited("tokens", tokens, WINDOW_TOKENS_MAX),
        min_seq=_limited("min_seq", min_seq, SEQ_MAX, least=0) or 0,
        wait_ms=_limited("wait_ms", WAIT_MS_DEFAULT if wait_ms is None else wait_ms, WAIT_MS_MAX, least=0) or 0,
        before_seq=_limited("before_seq", before_seq, SEQ_MAX),
    )  # fmt: skip
    call = await control.calls.get(principal, parse(ids.CALL, call_id))
    found = await control.conversations.read(call, asked)
    await control.audit.read(principal.project_id, "conversation.read", call_id)
    return found


@post(
    "/v1/calls/{call_id:str}/conversation",
    operation_id="writeConversation",
    tags=["conversation"],
    summary="Write a turn, a tool call or its result",
    responses={
        200: ResponseSpec(
            WrittenEntry,
            generate_examples=False,
            description="It was there before, or the tool has its result.",
        )
    },
)
async def write_conversation(
    call_id: FromPath[str],
    data: JSONBody[WriteEntry],
    control: ControlIn,
    principal: PrincipalIn,
    idempotency_key: Annotated[str | None, HeaderParameter(name="Idempotency-Key", required=False)] = None,
) -> Response[WrittenEntry]:
    """201 once it is durable; 200 where it was there before, and for a tool that has its result already."""
    principal.require("conversation:write")
    call = await control.calls.get(principal, parse(ids.CALL, call_id))
    written, replayed = await control.conversations.write(call, data, idempotency_key)
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    return Response(written, status_code=200 if replayed else 201, headers=headers)


@get(
    "/v1/calls/{call_id:str}/tools/{key:str}",
    operation_id="getTool",
    tags=["conversation"],
    summary="A tool's result, by its key",
)
async def get_tool(
    call_id: FromPath[str], key: FromPath[str], control: ControlIn, principal: PrincipalIn
) -> ToolView:
    principal.require("conversation:read")
    call = await control.calls.get(principal, parse(ids.CALL, call_id))
    found = await control.conversations.tool(call, key)
    await control.audit.read(principal.project_id, "tool.read", call_id)
    return found


def _limited(name: str, value: int | None, most: int, least: int = 1) -> int | None:
    """Too much is clamped; less than `least` is an error."""
    if value is not None and value < least:
        raise BadRequest(
            f"`{name}` must be at least {least}.", code="bad_limit", fix=f"Use {least} to {most}."
        )
    return None if value is None else min(value, most)


ROUTES: list[Any] = [get_conversation, write_conversation, get_tool]
