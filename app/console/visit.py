"""One request of somebody who is signed in: who it is, in which project, and how it is answered.

Decides what a person may do: what a key of the same role may, as a `Principal`; and what the operator's key may, as an `Operator`,
where the person is one. There is no other way to a service.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar.di import NamedDependency
from sqlalchemy import select
from sqlalchemy import text as sql

from app.audit import asker
from app.console import browser
from app.console.browser import Asked
from app.console.pages import DONE, PAGES, Page
from app.console.render import Html, html, redirect
from app.control import Control
from app.dependencies import ControlIn
from app.errors import Forbidden, NotFound, VoxplaneError
from app.ids import parse
from app.people.policy import HOME
from app.people.sessions import Session
from app.people.store import Person
from app.projects.agent_secret import version_of
from app.projects.auth import Operator, Principal
from app.projects.quotas_policy import bounds_of
from app.projects.roles import Actor, permissions
from app.projects.targets import targets_of
from app.tables import projects
from regions.wire import ids

NAMES_MAX = 100


class SignInNeeded(VoxplaneError):
    """`return_to`: where the visitor wanted to."""

    code, status, title = "sign_in_needed", 401, "You are not signed in"
    fix = "Sign in."

    def __init__(self, return_to: str) -> None:
        super().__init__("Your session is over, or there was none.")
        self.return_to = return_to


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectHere:
    """The project that the page is of. `control`: of the cell that it lives in."""

    id: str
    name: str
    mode: str
    role: str
    principal: Principal
    control: Control

    def path(self, page: str = "") -> str:
        return f"{HOME}/p/{self.id}/{page}" if page else f"{HOME}/p/{self.id}"


@dataclass(slots=True, kw_only=True)
class Visit:
    """`control`: of the home cell. `memberships`: (id, name) of the person's projects, as far as their cells answer."""

    request: Asked
    control: Control
    session: Session
    memberships: list[tuple[str, str]]
    pages: list[Page]
    here: ProjectHere | None = None
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def person(self) -> Person:
        return self.session.person

    @property
    def project(self) -> ProjectHere:
        """Of a page under ``/p/{project}``."""
        if self.here is None:
            raise NotFound("There is no such project.", fix="Choose one of yours.")
        return self.here

    def require_operator(self) -> Operator:
        """Raises `Forbidden` for who is not one."""
        if not self.person.operator:
            raise Forbidden("This is for the platform's operators.", fix="Ask one of them.")
        found = Operator(person=self.person.id)
        asker.is_(found.actor, platform=True)
        return found

    @property
    def fragment(self) -> bool:
        """Only a part of a page is wanted."""
        return self.request.headers.get("hx-request") == "true"

    def may(self, scope: str) -> bool:
        return self.here is not None and scope in self.here.principal.scopes

    def page(self, template: str, page: Page | None, *, status: int = 200, **values: Any) -> Html:
        return html(template, status=status, visit=self, page=page, done=self._done(), **values)

    def part(self, template: str, *, status: int = 200, **values: Any) -> Html:
        return html(template, status=status, visit=self, **values)

    def back(self, path: str, *, done: str = "") -> Html:
        """After something was done. `done`: a word of `DONE`."""
        mark = "&" if "?" in path else "?"
        return redirect(f"{path}{mark}done={quote(done)}" if done else path)

    def _done(self) -> str:
        return DONE.get(self.request.query_params.get("done", ""), "")

    def navigation(self) -> list[tuple[str, list[tuple[Page, str]]]]:
        """What stands at the side: the parts, each with its pages and their addresses. Who is in one project has its pages at
        hand on those of the platform too."""
        parts: list[tuple[str, list[tuple[Page, str]]]] = []
        if self.here is not None:
            parts.append((self.here.name, self._pages_of(self.here.id, self.here.principal.scopes)))
        elif len(self.person.roles) == 1 == len(self.memberships):
            (role,), ((id_, name),) = self.person.roles.values(), self.memberships
            parts.append((name, self._pages_of(id_, permissions(role))))
        if self.person.operator:
            own = [p for p in self.pages if p.scope == "platform"]
            parts.append(("Platform", [(p, f"{HOME}/{p.key}") for p in own]))
        return parts

    def _pages_of(self, project: str, scopes: frozenset[str]) -> list[tuple[Page, str]]:
        own = [p for p in self.pages if p.scope == "project" and (not p.needs or p.needs in scopes)]
        return [(p, f"{HOME}/p/{project}/{p.key}") for p in own]


async def provide_visit(request: Asked, control: ControlIn) -> Visit:
    """Raises `SignInNeeded`, and `NotFound` for a project that the person is no member of, whether there is one or not."""
    door = control.door
    browser.check_place(request, door.settings)
    session = await door.sessions.find(browser.cookie(request, door.settings, browser.SESSION))
    if session is None:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise SignInNeeded(wanted if request.method == "GET" else HOME)
    asker.is_(Actor(kind="person", id=ids.encode(ids.PERSON, session.person.id)))
    named = request.path_params.get("project")
    here = await _project_here(control, session.person, str(named)) if named is not None else None
    return Visit(
        request=request,
        control=control,
        session=session,
        memberships=await _names(control, session.person),
        pages=PAGES,
        here=here,
    )


VisitIn = NamedDependency[Visit]


async def provide_form(request: Asked, visit: VisitIn) -> dict[str, str]:
    """Of a form of this session's own pages; raises `Stale` for any other."""
    browser.check_origin(request, visit.control.door.settings)
    form = await browser.read_form(request)
    browser.check_token(form, visit.session.csrf)
    return form


FormIn = NamedDependency[dict[str, str]]


async def _project_here(control: Control, person: Person, text: str) -> ProjectHere:
    project_id = parse(ids.PROJECT, text)
    role = person.roles.get(project_id) if project_id is not None else None
    of_project = control.cells.of(project_id)
    if project_id is None or role is None or of_project is None:
        raise NotFound("There is no such project among yours.", fix="Choose one of yours.")
    query = select(projects.c.name, projects.c.mode, projects.c.settings).where(projects.c.id == project_id)
    async with of_project.db.project(project_id) as connection:
        row = (await connection.execute(query)).one_or_none()
        quotas = await connection.scalar(sql("select limits::text from vx.quotas"))
    if row is None:
        raise NotFound("There is no such project among yours.", fix="Choose one of yours.")
    allowed = control.settings.project_targets
    principal = Principal(
        project_id=project_id,
        key_id=person.id,
        mode=row.mode,
        role=role,
        scopes=permissions(role),
        cell=of_project.cell.number,
        targets=targets_of(row.mode, msgspec.json.encode(row.settings).decode()) if allowed else None,
        agent_secret=version_of(row.settings),
        person=person.id,
        bounds=bounds_of(quotas, None, control.settings.default_quotas),
    )
    return ProjectHere(
        id=text, name=row.name, mode=row.mode, role=role, principal=principal, control=of_project
    )


async def _names(control: Control, person: Person) -> list[tuple[str, str]]:
    """Of the person's projects, by name. One whose cell is away goes by its id."""
    wanted = list(person.roles)[:NAMES_MAX]
    if not wanted:
        return []
    answers, _ = await control.cells.ask(lambda c: _names_in(c, wanted))
    known = {p: name for some in answers for p, name in some}
    named = [(ids.encode(ids.PROJECT, p), known.get(p, ids.encode(ids.PROJECT, p))) for p in wanted]
    return sorted(named, key=lambda pair: pair[1].lower())


async def _names_in(control: Control, wanted: list[UUID]) -> list[tuple[UUID, str]]:
    query = select(projects.c.id, projects.c.name).where(projects.c.id.in_(wanted))
    async with control.db.transaction("admin") as connection:
        return [(row.id, row.name) for row in await connection.execute(query)]
