"""The page on which a key is narrowed: its name, a lesser role, fewer scopes. Decides what of it is offered: nothing that the key
does not have, for nothing makes a key do more."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath

from app.console.asking import read_form
from app.console.keys_page import PAGE, ROLES
from app.console.render import Html
from app.console.visit import FormIn, Visit, VisitIn
from app.errors import FieldError, Invalid, NotFound, VoxplaneError
from app.projects.roles import ROLE_SCOPES, permissions
from app.projects.shapes import ChangeKey


@get("/p/{project:str}/keys/{key:str}/change")
async def show(visit: VisitIn, key: FromPath[str]) -> Html:
    visit.project.principal.require("keys:write")
    return await _page(visit, key)


@post("/p/{project:str}/keys/{key:str}/change", audit="key.changed")
async def change(visit: VisitIn, form: FormIn, key: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("keys:write")
    try:
        await here.control.api_keys.change(here.principal, key, read_form(ChangeKey, wanted_of(form)))
    except VoxplaneError as refused:
        if refused.status == 404:
            raise
        return await _page(visit, key, refused=refused, given=form)
    return visit.back(here.path("keys"), done="key_changed")


async def _page(
    visit: Visit, key: str, *, refused: VoxplaneError | None = None, given: dict[str, str] | None = None
) -> Html:
    here = visit.project
    view = next((k for k in await here.control.api_keys.all(here.principal) if k.id == key), None)
    if view is None:
        raise NotFound("There is no such key.", fix="Look among the project's keys.")
    may = permissions(view.role, view.scopes)
    return visit.page(
        "key_change.html",
        PAGE,
        status=refused.status if refused is not None else 200,
        key=view,
        name=given.get("name", "") if given is not None else view.name,
        role=given.get("role", "") if given is not None else view.role,
        roles=[(name, what) for name, what in ROLES if name == view.role or (ROLE_SCOPES[name] & may and name != "owner")],
        groups=groups(may),
        kept={s for s in may if given is None or given.get(f"scope_{s}")},
        refused=refused,
    )  # fmt: skip


def wanted_of(form: dict[str, str]) -> dict[str, Any]:
    """As the API's body has it. All that the role may is written as no scopes at all. Raises `Invalid`."""
    role = form.get("role", "")
    kept = {
        name.removeprefix("scope_") for name, value in form.items() if name.startswith("scope_") and value
    }
    left = kept & ROLE_SCOPES.get(role, frozenset())
    if role in ROLE_SCOPES and not left:
        fault = FieldError(
            pointer="/scopes",
            detail="leave something that the role may; to take everything away, revoke the key",
        )
        raise Invalid("A key that may do nothing is of no use.", errors=[fault])
    whole = left == ROLE_SCOPES.get(role, frozenset())
    return {"name": form.get("name", "").strip(), "role": role, "scopes": [] if whole else sorted(left)}


def groups(may: frozenset[str]) -> list[tuple[str, list[str]]]:
    """Permissions by what they are about."""
    found: dict[str, list[str]] = {}
    for scope in sorted(may):
        found.setdefault(scope.partition(":")[0], []).append(scope)
    return list(found.items())


ROUTES: list[Any] = [show, change]
