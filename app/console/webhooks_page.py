"""Webhook endpoints: how they do, what was sent, sending again, tests. Decides nothing: asks the services that the API asks."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath
from litestar.response import Stream

from app.console.asking import first_of, in_utc, read_form
from app.console.live import Sent, parts, stream
from app.console.pages import Page
from app.console.render import Html, redirect, text_of
from app.console.visit import FormIn, ProjectHere, Visit, VisitIn
from app.errors import VoxplaneError
from app.webhooks.samples import SAMPLES
from app.webhooks.shapes import ChangeWebhook, CreateWebhook, Recover, Resend, RotateSecret, TestWebhook

PAGE = Page(key="webhooks", label="Webhooks", jump="w", icon="webhooks", needs="webhooks:read")
LIVE_EVERY_S = 2.0
ENDPOINTS = 50
ROWS = 50
WHAT = [
    ("undelivered", "what failed or was missed"),
    ("failed", "what failed for good"),
    ("missing", "what was never queued"),
    ("all", "everything, delivered events too"),
]
OVERLAPS = (
    (86_400, "a day"),
    (3_600, "an hour"),
    (604_800, "a week"),
    (0, "not at all: it ends now"),
)
STATES = ("waiting", "in_flight", "parked", "delivered", "failed")


@get("/p/{project:str}/webhooks")
async def show(visit: VisitIn) -> Html:
    visit.project.principal.require("webhooks:read")
    return await _list(visit)


@post("/p/{project:str}/webhooks", audit="webhook.created")
async def create(visit: VisitIn, form: FormIn) -> Html:
    """The answer shows the secret; no other page ever does."""
    here = visit.project
    here.principal.require("webhooks:write")
    try:
        given = {"url": form.get("url", "").strip(), "description": form.get("description", "").strip()}
        body = read_form(CreateWebhook, given | {"types": _types(form.get("types", ""))})
        created = await here.control.webhooks.create(here.principal, body)
    except VoxplaneError as refused:
        return await _list(visit, refused=refused, given=form)
    return await _list(visit, created=created)


@get("/p/{project:str}/webhooks/{webhook:str}")
async def one(visit: VisitIn, webhook: FromPath[str]) -> Html:
    visit.project.principal.require("webhooks:read")
    return await _one(visit, webhook)


@get("/p/{project:str}/webhooks/{webhook:str}/live")
async def live(visit: VisitIn, webhook: FromPath[str]) -> Stream:
    here = visit.project
    here.principal.require("webhooks:read")
    await here.control.webhooks.get(here.principal, webhook)

    async def look() -> list[Sent]:
        values = await _does(here, webhook)
        return [
            parts(text_of(f"_webhook_{part}.html", visit=visit, what=WHAT, **values))
            for part in ("health", "replays")
        ]

    return stream(visit, look, every_s=LIVE_EVERY_S)


@get(
    [
        f"/p/{{project:str}}/webhooks/{{webhook:str}}/{act}"
        for act in ("test", "enabled", "rotate", "delete", "resend", "recover")
    ]
)
async def back(visit: VisitIn, webhook: FromPath[str]) -> Html:
    """Where a form's answer is loaded again: to the page that it was on."""
    return redirect(visit.project.path(f"webhooks/{webhook}"))


@post("/p/{project:str}/webhooks/{webhook:str}/test")
async def test(visit: VisitIn, form: FormIn, webhook: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("webhooks:write")
    try:
        body = read_form(TestWebhook, {"type": form.get("type", "call.ended")})
        result = await here.control.webhook_tests.send(here.principal, webhook, body)
    except VoxplaneError as refused:
        return await _refused(visit, webhook, refused)
    return await _one(visit, webhook, tested=result)


@post("/p/{project:str}/webhooks/{webhook:str}/enabled", audit="webhook.changed")
async def enable(visit: VisitIn, form: FormIn, webhook: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("webhooks:write")
    on = form.get("enabled") == "1"
    await here.control.webhooks.change(here.principal, webhook, ChangeWebhook(enabled=on), None)
    done = "webhook_enabled" if on else "webhook_disabled"
    return visit.back(here.path(f"webhooks/{webhook}"), done=done)


@post("/p/{project:str}/webhooks/{webhook:str}/rotate", audit="webhook.secret_rotated")
async def rotate(visit: VisitIn, form: FormIn, webhook: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("webhooks:write")
    try:
        body = read_form(RotateSecret, _rotation(form))
        rotated = await here.control.webhooks.rotate(here.principal, webhook, body)
    except VoxplaneError as refused:
        return await _refused(visit, webhook, refused)
    return await _one(visit, webhook, rotated=rotated)


@post("/p/{project:str}/webhooks/{webhook:str}/delete", audit="webhook.deleted")
async def delete(visit: VisitIn, form: FormIn, webhook: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("webhooks:write")
    await here.control.webhooks.delete(here.principal, webhook)
    return visit.back(here.path("webhooks"), done="webhook_deleted")


@post("/p/{project:str}/webhooks/{webhook:str}/resend", audit="webhook.resent")
async def resend(visit: VisitIn, form: FormIn, webhook: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("webhooks:resend")
    seq = form.get("seq", "")
    try:
        body = read_form(Resend, {"call_id": form.get("call", ""), "seq": int(seq) if _whole(seq) else 0})
        await here.control.webhook_recovery.resend(here.principal, webhook, body)
    except VoxplaneError as refused:
        return await _refused(visit, webhook, refused)
    return visit.back(here.path(f"webhooks/{webhook}"), done="event_resent")


@post("/p/{project:str}/webhooks/{webhook:str}/recover", audit="webhook.recovered")
async def recover(visit: VisitIn, form: FormIn, webhook: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("webhooks:resend")
    try:
        given = {"since": in_utc(form.get("since")) or "", "what": form.get("what", "undelivered")}
        until = in_utc(form.get("until"))
        body = read_form(Recover, given | ({"until": until} if until else {}))
        await here.control.webhook_recovery.recover(here.principal, webhook, body)
    except VoxplaneError as refused:
        return await _refused(visit, webhook, refused)
    return visit.back(here.path(f"webhooks/{webhook}"), done="replay_started")


@post("/p/{project:str}/webhooks/{webhook:str}/replays/{replay:str}/cancel", audit="webhook.replay_canceled")
async def cancel(visit: VisitIn, form: FormIn, webhook: FromPath[str], replay: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("webhooks:resend")
    await here.control.webhook_recovery.cancel(here.principal, webhook, replay)
    return visit.back(here.path(f"webhooks/{webhook}"), done="replay_canceled")


# ----------------------------------------------------------------------------------------------------------------------


async def _list(
    visit: Visit,
    *,
    created: Any = None,
    refused: VoxplaneError | None = None,
    given: dict[str, str] | None = None,
) -> Html:
    here = visit.project
    found, more = await here.control.webhooks.page(
        here.principal, first_of(visit, "cursor") or None, ENDPOINTS
    )
    status = refused.status if refused is not None else 200
    return visit.page(
        "webhooks.html", PAGE, status=status, webhooks=found, more=more, created=created, refused=refused,
        given=given or {},
    )  # fmt: skip


async def _refused(visit: Visit, webhook: str, refused: VoxplaneError) -> Html:
    if refused.status == 404:
        raise refused
    return await _one(visit, webhook, refused=refused)


async def _one(
    visit: Visit,
    webhook: str,
    *,
    tested: Any = None,
    rotated: Any = None,
    refused: VoxplaneError | None = None,
) -> Html:
    here = visit.project
    values = await _does(here, webhook)
    state = first_of(visit, "state") or None
    state = state if state in STATES else None
    attempts, more = await here.control.webhook_record.attempts(
        here.principal, webhook, first_of(visit, "cursor") or None, ROWS
    )
    deliveries, _ = await here.control.webhook_record.deliveries(
        here.principal, webhook, state or "failed", None, ROWS
    )
    return visit.page(
        "webhook.html",
        PAGE,
        status=refused.status if refused is not None else 200,
        attempts=attempts,
        more=more,
        deliveries=deliveries,
        delivery_state=state or "failed",
        states=STATES,
        samples=sorted(SAMPLES),
        what=WHAT,
        overlaps=OVERLAPS,
        tested=tested,
        rotated=rotated,
        refused=refused,
        **values,
    )


async def _does(here: ProjectHere, webhook: str) -> dict[str, Any]:
    """Raises `NotFound`."""
    view, _ = await here.control.webhooks.get(here.principal, webhook)
    return {
        "webhook": view,
        "health": await here.control.webhook_record.health(here.principal, webhook),
        "replays": await here.control.webhook_recovery.all(here.principal, webhook),
    }


def _types(text: str) -> list[str] | None:
    """Names with commas or spaces between; None for all of them."""
    return text.replace(",", " ").split() or None


def _rotation(form: dict[str, str]) -> dict[str, Any]:
    overlap, secret = form.get("overlap_s", "86400"), form.get("secret", "").strip()
    return {"overlap_s": int(overlap) if _whole(overlap) else -1} | ({"secret": secret} if secret else {})


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 11


ROUTES: list[Any] = [show, create, one, live, back, test, enable, rotate, delete, resend, recover, cancel]
