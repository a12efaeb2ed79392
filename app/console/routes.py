"""The console's routes: the door, the files, and the modules of its pages. How a page is written stands in `app.console.pages`.

Decides where a visitor who names no page goes, and how what is refused looks in a browser: a page, or a line where a part of a page
was asked for. Nothing of it is in the API's description.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from litestar import Response, Router, get
from litestar.params import FromPath

from app.console import (
    audit_page,
    call_page,
    calls_page,
    door,
    fleet_page,
    key_change,
    keys_page,
    map_page,
    people_page,
    usage_page,
    webhook_change,
    webhooks_page,
)
from app.console.browser import Asked
from app.console.pages import PAGES
from app.console.render import ASSETS, Html, html, redirect
from app.console.visit import SignInNeeded, VisitIn, provide_form, provide_visit
from app.errors import NotFound, VoxplaneError
from app.people.policy import HOME
from app.problems import EXCEPTION_HANDLERS, answer_to

MODULES: list[Any] = [
    map_page, calls_page, webhooks_page, usage_page, keys_page, audit_page, fleet_page, people_page,
]  # fmt: skip
"""The pages, in the order of the navigation."""
PAGES[:] = [page for module in MODULES for page in getattr(module, "PAGES", [module.PAGE])]

FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


@get("/")
async def home(visit: VisitIn) -> Html:
    """The first project's first page, else the platform's, else how to get one."""
    if visit.memberships:
        return redirect(f"{HOME}/p/{visit.memberships[0][0]}")
    for page in PAGES:
        if page.scope == "platform" and visit.person.operator:
            return redirect(f"{HOME}/{page.key}")
    return visit.page("nothing_yet.html", None)


@get("/p/{project:str}")
async def project_home(visit: VisitIn) -> Html:
    """The first page that the person may see."""
    for page in PAGES:
        if page.scope == "project" and (not page.needs or visit.may(page.needs)):
            return redirect(visit.project.path(page.key))
    return visit.page("nothing_yet.html", None)


@get("/assets/{name:str}")
async def file(name: FromPath[str]) -> Response[bytes]:
    found = ASSETS.get(name)
    if found is None:
        raise NotFound("There is no such file.")
    return Response(found.body, media_type=found.media_type, headers=FOR_EVER)


@get(["/{rest:path}", "/p/{project:str}/{rest:path}"])
async def elsewhere(visit: VisitIn, rest: FromPath[str]) -> Html:
    raise NotFound("There is no such page.", fix="Go on from one of the pages at the side.")


def refused(request: Asked, error: Exception) -> Html:
    """Whatever the API answers with, for people: with what is wrong, what mends it, and the request's id."""
    if isinstance(error, SignInNeeded) and request.method in ("GET", "HEAD"):
        to = f"{HOME}/sign-in" + (f"?next={quote(error.return_to)}" if error.return_to != HOME else "")
        if request.headers.get("hx-request") == "true":
            return html(
                "_notice.html", status=401, headers={"HX-Redirect": to}, problem=_problem(request, error)
            )
        return redirect(to)
    problem = _problem(request, error)
    small = request.headers.get("hx-request") == "true"
    template = "_notice.html" if small else "refused.html"
    more = error.headers() if isinstance(error, VoxplaneError) else {}
    return html(template, status=problem["status"], headers=more, problem=problem, home=HOME)


def _problem(request: Asked, error: Exception) -> dict[str, Any]:
    found: dict[str, Any] = answer_to(request, error).content
    return found


HANDLERS: Any = {kind: refused for kind in EXCEPTION_HANDLERS}

ROUTES: list[Any] = [
    Router(
        path=HOME,
        route_handlers=[
            home,
            project_home,
            file,
            *door.ROUTES,
            *(route for module in MODULES for route in module.ROUTES),
            *call_page.ROUTES,
            *webhook_change.ROUTES,
            *key_change.ROUTES,
            elsewhere,
        ],
        dependencies={"visit": provide_visit, "form": provide_form},
        exception_handlers=HANDLERS,
        include_in_schema=False,
    )
]
