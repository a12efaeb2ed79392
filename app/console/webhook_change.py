"""The page on which an endpoint is changed. Decides what of a form differs from the endpoint as it is; the service says what may be.

The form carries the version that was read: where somebody else has changed the endpoint meanwhile, nothing is overwritten unseen.
Values of headers are never shown, so lines in that field take the place of all headers, and none keeps them.
"""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath

from app.console.asking import read_form
from app.console.pages import Page
from app.console.render import Html
from app.console.visit import FormIn, Visit, VisitIn
from app.errors import FieldError, Invalid, PreconditionFailed, VoxplaneError
from app.webhooks.shapes import ChangeWebhook, WebhookView

PAGE = Page(key="webhooks", label="Webhooks", jump="w", icon="webhooks", needs="webhooks:write")
SIGNATURES = (("v1", "HMAC-SHA256 with the secret"), ("v1a", "Ed25519, checked with the public key"))
FORMATS = (("voxplane", "Voxplane event"), ("cloudevents", "CloudEvent 1.0"))
NUMBERS = ("rate_per_s", "concurrency")
STALE = "Somebody has changed the endpoint since you opened this form."
STALE_FIX = "The fields show what you wrote. Save once more to put it in the place of theirs, or load the page again to see it."


@get("/p/{project:str}/webhooks/{webhook:str}/change")
async def show(visit: VisitIn, webhook: FromPath[str]) -> Html:
    visit.project.principal.require("webhooks:write")
    return await _page(visit, webhook)


@post("/p/{project:str}/webhooks/{webhook:str}/change", audit="webhook.changed")
async def change(visit: VisitIn, form: FormIn, webhook: FromPath[str]) -> Html:
    here = visit.project
    here.principal.require("webhooks:write")
    webhooks, home = here.control.webhooks, here.path(f"webhooks/{webhook}")
    view, version = await webhooks.get(here.principal, webhook)
    if form.get("version") != str(version):
        return await _page(visit, webhook, refused=PreconditionFailed(STALE, fix=STALE_FIX), given=form)
    try:
        wanted = different(view, wanted_of(form))
        if not wanted:
            here.control.audit.unchanged("webhook.changed")
            return visit.back(home, done="webhook_unchanged")
        await webhooks.change(here.principal, webhook, read_form(ChangeWebhook, wanted), f'"{version}"')
    except VoxplaneError as refused:
        if refused.status == 404:
            raise
        return await _page(visit, webhook, refused=refused, given=form)
    return visit.back(home, done="webhook_changed")


async def _page(
    visit: Visit, webhook: str, *, refused: VoxplaneError | None = None, given: dict[str, str] | None = None
) -> Html:
    """`given`: what somebody wrote, where it was not taken."""
    here = visit.project
    view, version = await here.control.webhooks.get(here.principal, webhook)
    return visit.page(
        "webhook_change.html",
        PAGE,
        status=refused.status if refused is not None else 200,
        webhook=view,
        version=version,
        fields=written(view) | (given if given is not None else {}),
        signed={
            s for s, _ in SIGNATURES if (f"sign_{s}" in given if given is not None else s in view.signatures)
        },
        signatures=SIGNATURES,
        formats=FORMATS,
        refused=refused,
        wrong=by_field(refused),
    )


# ------------------------------------------------------------------------------------------------------------------ pure


def written(view: WebhookView) -> dict[str, str]:
    """An endpoint as the form's fields have it."""
    return {
        "url": view.url,
        "description": view.description,
        "types": ", ".join(view.types or []),
        "metadata": "\n".join(f"{name}={value}" for name, value in (view.metadata or {}).items()),
        "format": view.format,
        "headers": "",
        **{name: str(getattr(view, name) or "") for name in NUMBERS},
    }


def wanted_of(form: dict[str, str]) -> dict[str, Any]:
    """A form as the API's body has it, of the fields that it carries. Raises `Invalid`."""
    found: dict[str, Any] = {
        name: form[name].strip() for name in ("url", "description", "format") if name in form
    }
    faults: list[FieldError] = []
    if "types" in form:
        found["types"] = form["types"].replace(",", " ").split() or None
    for name in NUMBERS:
        text = form.get(name, "").strip()
        if text and not (text.isascii() and text.isdigit() and len(text) < 10):
            faults.append(
                FieldError(pointer=f"/{name}", detail="a whole number, or nothing for no bound of its own")
            )
        found[name] = int(text) if text.isascii() and text.isdigit() else None
    for name, mark in (("metadata", "="), ("headers", ":")):
        pairs, wrong = _pairs(form.get(name, ""), mark)
        faults += [FieldError(pointer=f"/{name}", detail=said) for said in wrong]
        if name == "metadata":
            found[name] = pairs or None
        elif pairs or form.get("no_headers"):
            found[name] = pairs or None
            if pairs and form.get("no_headers"):
                faults.append(FieldError(pointer="/headers", detail="either headers, or none at all"))
    found["signatures"] = [s for s, _ in SIGNATURES if form.get(f"sign_{s}")]
    if not found["signatures"]:
        faults.append(
            FieldError(pointer="/signatures", detail="choose at least one: receivers could check nothing")
        )
    if faults:
        raise Invalid("The endpoint cannot be as it is asked for.", errors=faults)
    return found


def different(view: WebhookView, wanted: dict[str, Any]) -> dict[str, Any]:
    """What of it is not so already. Headers that are given are always new: their values are not known here."""
    if view.scope == "call":
        wanted = {name: value for name, value in wanted.items() if name != "url"}
    return {
        name: value
        for name, value in wanted.items()
        if (name == "headers" and (value or view.header_names))
        or (name != "headers" and value != getattr(view, name))
    }


def by_field(refused: VoxplaneError | None) -> dict[str, list[str]]:
    """What is wrong, by the field that it stands beside."""
    found: dict[str, list[str]] = {}
    for fault in refused.errors if refused is not None else ():
        name, _, within = fault.pointer.removeprefix("/").partition("/")
        found.setdefault(name, []).append(
            f"{within}: {fault.detail}" if within and not within.isdigit() else fault.detail
        )
    return found


def _pairs(text: str, mark: str) -> tuple[dict[str, str], list[str]]:
    """`name<mark>value`, one a line, and what is wrong with lines by their number: what stands in them is not repeated."""
    found: dict[str, str] = {}
    wrong: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        name, there, value = (part.strip() for part in line.partition(mark))
        if not line.strip():
            continue
        if not there or not name:
            wrong.append(
                f"line {number} is not name{mark} value"
                if mark == ":"
                else f"line {number} is not name{mark}value"
            )
        elif name in found:
            wrong.append(f"line {number} names the same a second time")
        found[name] = value
    return found, wrong


ROUTES: list[Any] = [show, change]
