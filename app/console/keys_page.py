"""Keys and people of a project: who and what may act for it. Decides nothing: asks the services that the API asks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromPath

from app.clock import rfc3339
from app.console.asking import part_of
from app.console.pages import Page
from app.console.render import Html
from app.console.visit import FormIn, Visit, VisitIn
from app.errors import BadRequest, VoxplaneError
from app.people.shapes import SetMember
from app.pointers import invalid_from
from app.projects.auth import Principal
from app.projects.roles import permissions
from app.projects.shapes import CreateKey, RotateKey

PAGE = Page(key="keys", label="Keys and people", jump="k", icon="key", needs="keys:read")

ROWS = 40
MEMBERS_SHOWN = 100
LASTS = ("7", "30", "90", "365")
"""Days that a key may be made for."""

ROLES = [
    ("owner", "everything, and who else is an owner"),
    ("admin", "everything but making owners"),
    ("developer", "calls, conversations, webhooks"),
    ("operator", "sees calls and webhooks, ends and moves calls, sends webhooks again"),
    ("viewer", "sees calls and webhooks"),
    ("billing", "usage and limits"),
]


@get("/p/{project:str}/keys")
async def show(visit: VisitIn) -> Html:
    visit.project.principal.require("keys:read")
    return await _page(visit)


@post("/p/{project:str}/keys", audit="key.created")
async def create(visit: VisitIn, form: FormIn) -> Html:
    """The answer shows the secret; no other page ever does."""
    here = visit.project
    here.principal.require("keys:write")
    try:
        body = _read(CreateKey, _wanted(form, here.control.clock.now()))
        created = await here.control.api_keys.create(here.principal, body)
    except VoxplaneError as refused:
        return await _page(visit, refused=refused, given=form)
    return await _page(visit, created=created)


@post("/p/{project:str}/keys/{key:str}/rotate", audit="key.rotated")
async def rotate(visit: VisitIn, form: FormIn, key: FromPath[str]) -> Html:
    """The same key with another secret, which the answer shows; the one before works on for a day."""
    here = visit.project
    here.principal.require("keys:write")
    rotated = await here.control.api_keys.rotate(here.principal, key, RotateKey())
    return await _page(visit, created=rotated)


@post("/p/{project:str}/keys/{key:str}/revoke", audit="key.revoked")
async def revoke(visit: VisitIn, form: FormIn, key: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("keys:write")
    await here.control.api_keys.revoke(here.principal, key)
    return visit.back(here.path("keys"), done="key_revoked")


@post("/p/{project:str}/members", audit="member.set")
async def set_member(visit: VisitIn, form: FormIn) -> Html:
    here = visit.project
    here.principal.require("members:write")
    try:
        body = _read(SetMember, {"email": form.get("email", ""), "role": form.get("role", "")})
        await visit.control.door.people.set_member(here.principal, body.email, body.role)
    except VoxplaneError as refused:
        return await _page(visit, refused_member=refused, given=form)
    return visit.back(here.path("keys"), done="member_set")


@post("/p/{project:str}/members/{person:str}/remove", audit="member.removed")
async def remove_member(visit: VisitIn, form: FormIn, person: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("members:write")
    await visit.control.door.people.remove_member(here.principal, person)
    return visit.back(here.path("keys"), done="member_removed")


async def _page(
    visit: Visit,
    *,
    created: Any = None,
    refused: VoxplaneError | None = None,
    refused_member: VoxplaneError | None = None,
    given: dict[str, str] | None = None,
) -> Html:
    here = visit.project
    keys = await here.control.api_keys.all(here.principal)
    members = await visit.control.door.people.members(here.principal)
    error = refused or refused_member
    now = rfc3339(here.control.clock.now())
    over = {k.id for k in keys if k.revoked_at is None and k.expires_at is not None and k.expires_at <= now}
    shown, at, more = part_of(visit, keys, ROWS)
    return visit.page(
        "keys.html",
        PAGE,
        status=error.status if error is not None else 200,
        keys=shown,
        working=sum(k.revoked_at is None for k in keys) - len(over),
        over=over,
        at=at,
        more=more,
        members=members[:MEMBERS_SHOWN],
        count=len(members),
        lasts=LASTS,
        roles=[r for r in ROLES if _gives(here.principal, r[0])],
        created=created,
        refused=refused,
        refused_member=refused_member,
        given=given or {},
    )


def _gives(principal: Principal, role: str) -> bool:
    """What the services would refuse is not offered."""
    return permissions(role) <= principal.scopes and (role != "owner" or principal.role == "owner")


def _wanted(form: dict[str, str], now: datetime) -> dict[str, Any]:
    """As the API's body has it: an end in so many days, addresses between spaces or commas."""
    given: dict[str, Any] = {"name": form.get("name", ""), "role": form.get("role", "")}
    if form.get("days"):
        if form["days"] not in LASTS:
            raise BadRequest("A key does not last so.", fix=f"Choose one of {', '.join(LASTS)} days.")
        given["expires_at"] = rfc3339(now + timedelta(days=int(form["days"])))
    if addresses := form.get("allow_from", "").replace(",", " ").split():
        given["allow_from"] = addresses
    return given


def _read(kind: Any, given: dict[str, Any]) -> Any:
    """A form as a body of the API would be read. Raises `Invalid`."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise invalid_from(str(error)) from None


ROUTES: list[Any] = [show, create, rotate, revoke, set_member, remove_member]
