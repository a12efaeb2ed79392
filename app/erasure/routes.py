"""Erasures over HTTP. Decides nothing: parses, asks `Erasures`, answers."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, get, patch, post
from litestar.params import FromPath, HeaderParameter, JSONBody

from app import cursors
from app.conditions import version_named
from app.dependencies import ControlIn, PrincipalIn
from app.erasure.privacy import ChangePrivacy, PrivacyView
from app.erasure.shapes import EraseRequest, ErasurePage, ErasureView
from app.ids import parse
from app.queries import PagingIn
from regions.wire import ids


@post(
    "/v1/calls/{call_id:str}/erase",
    operation_id="eraseCall",
    audit="erasure.created",
    tags=["erasures"],
    summary="Forget what was said in a call, and who said it",
    status_code=202,
)
async def erase_call(call_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> ErasureView:
    """A call that lives ends. Its key is destroyed at once; the answer says which places have yet to do their part."""
    principal.require("erasures:write")
    call = await control.calls.get(principal, parse(ids.CALL, call_id))
    return await control.erasures.call(principal, call.id)


@post(
    "/v1/erasures",
    operation_id="createErasure",
    audit="erasure.created",
    tags=["erasures"],
    summary="Forget every call that is about somebody",
    status_code=202,
)
async def create_erasure(
    data: JSONBody[EraseRequest], control: ControlIn, principal: PrincipalIn
) -> ErasureView:
    """By the `subject` that the creates named, by a number, or by metadata. Of whom it was about nothing is kept."""
    principal.require("erasures:write")
    return await control.erasures.somebody(principal, data)


@get("/v1/erasures", operation_id="listErasures", tags=["erasures"], summary="List erasures, newest first")
async def list_erasures(control: ControlIn, principal: PrincipalIn, paging: PagingIn) -> ErasurePage:
    principal.require("erasures:read")
    below = parse(ids.ERASURE, str(cursors.decode("erasures", paging.cursor)[0])) if paging.cursor else None
    found = await control.erasures.page(principal, below, paging.limit + 1)
    page = found[: paging.limit]
    more = cursors.encode("erasures", page[-1].id) if len(found) > paging.limit else None
    return ErasurePage(data=page, next_cursor=more)


@get(
    "/v1/erasures/{erasure_id:str}",
    operation_id="getErasure",
    tags=["erasures"],
    summary="How far an erasure is, place by place",
)
async def get_erasure(erasure_id: FromPath[str], control: ControlIn, principal: PrincipalIn) -> ErasureView:
    principal.require("erasures:read")
    return await control.erasures.get(principal, erasure_id)


@get(
    "/v1/privacy",
    operation_id="getPrivacy",
    tags=["erasures"],
    summary="What is struck out, and how long is kept what",
)
async def get_privacy(control: ControlIn, principal: PrincipalIn) -> Response[PrivacyView]:
    principal.require("privacy:read")
    view = await control.erasures.privacy.read(principal)
    return Response(view, headers={"ETag": f'"{view.version}"'})


@patch(
    "/v1/privacy",
    operation_id="changePrivacy",
    audit="privacy.changed",
    tags=["erasures"],
    summary="Change what is struck out, or how long is kept what",
)
async def change_privacy(
    data: JSONBody[ChangePrivacy],
    control: ControlIn,
    principal: PrincipalIn,
    if_match: Annotated[str | None, HeaderParameter(name="If-Match", required=False)] = None,
) -> Response[PrivacyView]:
    """Needs `If-Match` with the version that was read."""
    principal.require("privacy:write")
    known = version_named(if_match, "the privacy settings")
    view = await control.erasures.privacy.change(principal, known, data)
    return Response(view, headers={"ETag": f'"{view.version}"'})


ROUTES: list[Any] = [erase_call, create_erasure, list_erasures, get_erasure, get_privacy, change_privacy]
