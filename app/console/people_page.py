"""People and projects of the platform: accounts, who is an operator, who is in which project. For operators."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromPath

from app.audit.chain import PLATFORM
from app.console import browser
from app.console.asking import first_of, part_of
from app.console.pages import Page
from app.console.render import Html
from app.console.visit import FormIn, Visit, VisitIn
from app.errors import VoxplaneError
from app.people.policy import HOME
from app.people.shapes import CreatePerson, Grant
from app.pointers import invalid_from
from app.projects.roles import ROLE_SCOPES

PAGE = Page(key="people", label="People", jump="p", icon="people", scope="platform")
SHOWN = f"{HOME}/people"
REMOVED_SHOWN = 20
ROWS = 40
PROJECTS_OFFERED = 300
"""Others are named by their ids."""
ERASING_MAX = 20


@get("/people")
async def show(visit: VisitIn) -> Html:
    visit.require_operator()
    return await _page(visit)


@post("/people", audit="person.created")
async def create(visit: VisitIn, form: FormIn) -> Html:
    """The answer shows the link by which the person sets a password; where a provider vouches, none is needed."""
    visit.require_operator()
    door = visit.control.door
    try:
        given = {
            "email": form.get("email", ""),
            "name": form.get("name", ""),
            "operator": form.get("operator") == "1",
        }
        person = await door.people.create(_read(CreatePerson, given))
        if form.get("project"):
            role = _read(Grant, {"role": form.get("role", "")}).role
            await door.people.grant(person.id, form["project"], role)
    except VoxplaneError as refused:
        return await _page(visit, refused=refused, given=form)
    if not door.settings.passwords:
        return visit.back(SHOWN, done="person_changed")
    return await _page(visit, link=await _link(visit, person.id), person=person)


@post("/people/{person:str}/link", audit="person.link_made")
async def make_link(visit: VisitIn, form: FormIn, person: FromPath[str]) -> Html:
    visit.require_operator()
    found = await visit.control.door.people.get(person)
    return await _page(visit, link=await _link(visit, person), person=found)


@post("/people/{person:str}/operator", audit="person.changed")
async def set_operator(visit: VisitIn, form: FormIn, person: FromPath[str]) -> Html:
    visit.require_operator()
    await visit.control.door.people.set_operator(person, form.get("operator") == "1")
    return visit.back(SHOWN, done="person_changed")


@post("/people/{person:str}/remove", audit="person.removed")
async def remove(visit: VisitIn, form: FormIn, person: FromPath[str]) -> Html:
    visit.require_operator()
    await visit.control.door.people.remove(person)
    return visit.back(SHOWN, done="person_removed")


@post("/people/{person:str}/erase", audit="audit.details_erased")
async def erase(visit: VisitIn, form: FormIn, person: FromPath[str]) -> Html:
    """What the audit log has of somebody who was removed; a good many requests' worth at a time."""
    visit.require_operator()
    for _ in range(ERASING_MAX):
        found = await visit.control.door.people.erase(person)
        if found.done or found.cells_away:
            break
    return visit.back(SHOWN, done="person_erased" if found.done else "person_partly_erased")


@post("/people/{person:str}/memberships", audit="member.set")
async def grant(visit: VisitIn, form: FormIn, person: FromPath[str]) -> Html:
    """A role in a project; ``none`` takes it away."""
    visit.require_operator()
    people, project = visit.control.door.people, form.get("project", "")
    if form.get("role") == "none":
        await people.withdraw(person, project)
    else:
        await people.grant(person, project, _read(Grant, {"role": form.get("role", "")}).role)
    return visit.back(SHOWN, done="person_changed")


async def _page(
    visit: Visit,
    *,
    refused: VoxplaneError | None = None,
    link: str = "",
    person: Any = None,
    given: dict[str, str] | None = None,
) -> Html:
    control = visit.control
    answers, away = await control.cells.ask(lambda c: c.projects.all())
    gone, _ = await control.audit_log.page(
        PLATFORM, actor=None, action="person.removed", target=None, since=None, until=None, cursor=None, limit=REMOVED_SHOWN
    )  # fmt: skip
    find = first_of(visit, "find").lower()
    people = [p for p in await control.door.people.all() if find in p.email.lower() or find in p.name.lower()]
    shown, at, more = part_of(visit, people, ROWS)
    projects = [project for some in answers for project in some]
    return visit.page(
        "people.html",
        PAGE,
        status=refused.status if refused is not None else 200,
        people=shown,
        count=len(people),
        find=find,
        at=at,
        more=more,
        names={project.id: project.name for project in projects},
        projects=projects[-PROJECTS_OFFERED:],
        cells_away=away,
        roles=list(ROLE_SCOPES)[::-1],
        gone=gone,
        refused=refused,
        link=link,
        person=person,
        given=given or {},
    )


async def _link(visit: Visit, person: str) -> str:
    made = await visit.control.door.people.link(person, "password")
    return browser.origin(visit.request, visit.control.door.settings) + made.path


def _read(kind: Any, given: dict[str, Any]) -> Any:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise invalid_from(str(error)) from None


ROUTES: list[Any] = [show, create, make_link, set_operator, remove, erase, grant]
