"""The door: the pages of somebody who is not signed in yet, and the ways out.

Decides what each way in shows and which cookie it leaves. Who gets in is decided by `app.people.sign_in`.
"""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromQuery

from app.console import browser
from app.console.browser import Asked
from app.console.pages import DONE
from app.console.render import Html, html, redirect
from app.console.visit import FormIn, VisitIn
from app.control import Control
from app.dependencies import ControlIn
from app.errors import Forbidden, NotFound, VoxplaneError
from app.people.policy import FLOW_LIFE, HOME, PASSWORD_MIN, SESSION_LIFE, address_group, return_to

CALLBACK = f"{HOME}/sign-in/provider/callback"


@get("/sign-in")
async def sign_in_page(request: Asked, control: ControlIn, next: FromQuery[str | None] = None) -> Html:
    browser.check_place(request, control.door.settings)
    return _page(request, control, wanted=return_to(next))


@post("/sign-in", audit="person.signed_in")
async def sign_in(request: Asked, control: ControlIn) -> Html:
    """With an address and a password."""
    form = await _form(request, control)
    wanted, email = return_to(form.get("next")), form.get("email", "")
    if not control.door.settings.passwords:
        raise NotFound("Nobody signs in with a password here.", fix="Use the provider.")
    try:
        person_id = await control.door.sign_in.by_password(email, form.get("password", ""), _address(request))
    except VoxplaneError as refused:
        return _page(request, control, wanted=wanted, email=email[:254], refused=refused)
    return await _came_in(request, control, person_id, wanted)


@get("/sign-in/link")
async def link_page(request: Asked, control: ControlIn) -> Html:
    """The secret stands behind the #, which no server and no log sees: the page sends it by a form."""
    browser.check_place(request, control.door.settings)
    return html("sign_in_link.html")


@post("/sign-in/link", audit="person.signed_in")
async def by_link(request: Asked, control: ControlIn) -> Html:
    form = await _form(request, control)
    person_id = await control.door.sign_in.by_link(form.get("secret", ""))
    return await _came_in(request, control, person_id, HOME)


@get("/sign-in/password")
async def password_page(request: Asked, control: ControlIn) -> Html:
    browser.check_place(request, control.door.settings)
    return html("sign_in_password.html", least=PASSWORD_MIN, refused=None, secret="")


@post("/sign-in/password", audit="person.password_set")
async def set_password(request: Asked, control: ControlIn) -> Html:
    """By a link that sets one."""
    form = await _form(request, control)
    secret = form.get("secret", "")
    try:
        person_id = await control.door.sign_in.set_password(secret, form.get("password", ""))
    except VoxplaneError as refused:
        status = refused.status
        return html(
            "sign_in_password.html", status=status, least=PASSWORD_MIN, refused=refused, secret=secret[:64]
        )
    return await _came_in(request, control, person_id, HOME)


@get("/sign-in/provider")
async def to_provider(request: Asked, control: ControlIn, next: FromQuery[str | None] = None) -> Html:
    door = control.door
    browser.check_place(request, door.settings)
    if door.provider is None:
        raise NotFound("There is no provider here.", fix="Set VOXPLANE_OIDC_ISSUER, or sign in by a link.")
    state, secret, flow = await door.sign_in.begin(return_to(next))
    url = await door.provider.authorize_url(redirect_uri=_callback(request, control), state=state, flow=flow)
    life_s = int(FLOW_LIFE.total_seconds())
    kept = browser.set_cookie(request, door.settings, browser.FLOW, secret, life_s)
    return redirect(url, headers={"Set-Cookie": kept})


@get("/sign-in/provider/callback")
async def from_provider(request: Asked, control: ControlIn) -> Html:
    """What the provider sends the browser back with: a code, or why not."""
    door, query = control.door, request.query_params
    if door.provider is None:
        raise NotFound("There is no provider here.", fix="Sign in by a link.")
    browser.check_place(request, door.settings)
    flow = await door.sign_in.resume(
        query.get("state", ""), browser.cookie(request, door.settings, browser.FLOW) or ""
    )
    code = query.get("code")
    if not code or query.get("iss", door.settings.issuer) != door.settings.issuer:
        raise _not_vouched(query.get("error", ""))
    who = await door.provider.vouch(code=code, redirect_uri=_callback(request, control), flow=flow)
    person_id = await door.sign_in.vouched(who.issuer, who.subject, who.email)
    return await _came_in(request, control, person_id, flow.return_to)


@post("/sign-out")
async def sign_out(visit: VisitIn, form: FormIn) -> Html:
    """Here, or in every browser of the person."""
    door, everywhere = visit.control.door, form.get("everywhere") == "1"
    secret = browser.cookie(visit.request, door.settings, browser.SESSION)
    if everywhere:
        await door.sessions.close_all(visit.person.id)
    elif secret is not None:
        await door.sessions.close(secret)
    gone = browser.set_cookie(visit.request, door.settings, browser.SESSION, "", 0)
    done = "signed_out_everywhere" if everywhere else "signed_out"
    clear = {"Set-Cookie": gone, "Clear-Site-Data": '"cache"'}
    return redirect(f"{HOME}/sign-in?done={done}", headers=clear)


# ----------------------------------------------------------------------------------------------------------------------


async def _form(request: Asked, control: Control) -> dict[str, str]:
    """Of somebody without a session: it has to come from our own pages."""
    browser.check_place(request, control.door.settings)
    browser.check_origin(request, control.door.settings)
    return await browser.read_form(request)


async def _came_in(request: Asked, control: Control, person_id: Any, wanted: str) -> Html:
    """A new session always: what the browser had before is worth nothing any more."""
    door = control.door
    before = browser.cookie(request, door.settings, browser.SESSION)
    secret = await door.sessions.open(person_id, before)
    life_s = int(SESSION_LIFE.total_seconds())
    kept = browser.set_cookie(request, door.settings, browser.SESSION, secret, life_s)
    return redirect(wanted, headers={"Set-Cookie": kept})


def _page(
    request: Asked, control: Control, *, wanted: str, email: str = "", refused: VoxplaneError | None = None
) -> Html:
    return html(
        "sign_in.html",
        status=refused.status if refused is not None else 200,
        settings=control.door.settings,
        wanted=wanted,
        local=browser.is_local(request),
        email=email,
        refused=refused,
        done=DONE.get(request.query_params.get("done", ""), ""),
    )


def _callback(request: Asked, control: Control) -> str:
    return browser.origin(request, control.door.settings) + CALLBACK


def _address(request: Asked) -> str:
    return address_group(request.client.host if request.client is not None else "")


def _not_vouched(error: str) -> VoxplaneError:
    """`error`: the provider's own word (RFC 6749, 4.1.2.1), shown where it is one of those."""
    known = {"access_denied": "you, or it, said no", "login_required": "it wants you to sign in there first"}
    why = known.get(error, "it sent no code")
    return Forbidden(
        f"The provider did not vouch for you: {why}.", code="sign_in_refused", fix="Sign in again."
    )


ROUTES: list[Any] = [
    sign_in_page, sign_in, link_page, by_link, password_page, set_password, to_provider, from_provider, sign_out,
]  # fmt: skip
