"""The browser at the other end: its cookies, where it says it comes from, what its forms carry.

Decides which requests may change something: those of our own pages, in a session, with that session's token. And that a session
is not carried over a network in clear: without HTTPS the console serves loopback only.
"""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from litestar import Request

from app.errors import BadRequest, Forbidden, TooLarge
from app.people.settings import SignInSettings

Asked = Request[Any, Any, Any]

SESSION, FLOW = "vx_session", "vx_flow"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
FORM_BYTES_MAX = 64 * 1024
FIELDS_MAX = 100
FORM = "application/x-www-form-urlencoded"


class Stale(Forbidden):
    code, title = "form_stale", "The form is of another session"
    fix = "Load the page again, and send it once more."


def is_secure(request: Asked, settings: SignInSettings) -> bool:
    return settings.console_url.startswith("https://") or request.url.scheme == "https"


def is_local(request: Asked) -> bool:
    """By the name that it asks under: loopback, which may be the end of a forwarded port."""
    host = _host(request)
    return host in LOOPBACK or host.endswith(".localhost")


def check_place(request: Asked, settings: SignInSettings) -> None:
    """Raises `Forbidden` where a session would travel in clear, `BadRequest` for a Host that is none: first of all, as nothing
    that reads the request's URL could answer."""
    _host(request)
    if not is_secure(request, settings) and not is_local(request):
        raise Forbidden(
            "The console needs HTTPS, except on loopback.",
            code="https_needed",
            fix="Put HTTPS in front and set VOXPLANE_CONSOLE_URL, or forward a port to 127.0.0.1.",
        )


def _host(request: Asked) -> str:
    try:
        asked = urlsplit(f"//{request.headers.get('host', '')}")
        _ = asked.port  # raises as well, where there is no such port
    except ValueError:
        raise BadRequest(
            "The Host header is neither a name nor an address.",
            fix="Open the console under the address it is served at.",
        ) from None
    return asked.hostname or ""


def origin(request: Asked, settings: SignInSettings) -> str:
    """Of the console itself, as browsers write it."""
    return settings.console_url or f"{request.url.scheme}://{request.headers.get('host', '')}"


def cookie_name(name: str, secure: bool) -> str:
    """`__Host-` makes browsers hold it to this host, to HTTPS and to the whole of it."""
    return f"__Host-{name}" if secure else name


def cookie(request: Asked, settings: SignInSettings, name: str) -> str | None:
    return request.cookies.get(cookie_name(name, is_secure(request, settings)))


def set_cookie(request: Asked, settings: SignInSettings, name: str, value: str, max_age_s: int) -> str:
    """The header. A `max_age_s` of 0 takes it away."""
    secure = is_secure(request, settings)
    parts = [
        f"{cookie_name(name, secure)}={value}",
        "Path=/",
        f"Max-Age={max_age_s}",
        "HttpOnly",
        "SameSite=Lax",
    ]
    return "; ".join([*parts, "Secure"] if secure else parts)


def check_origin(request: Asked, settings: SignInSettings) -> None:
    """Raises `Stale` for a request that another site, or nobody's page, has sent."""
    site, given = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    ours = {origin(request, settings), f"{request.url.scheme}://{request.headers.get('host', '')}"}
    if (
        site not in (None, "same-origin")
        or (given is not None and given not in ours)
        or (site is given is None)
    ):
        raise Stale("The request does not come from a page of this console.")


def check_token(form: dict[str, str], token: str) -> None:
    given = form.get("csrf", "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        raise Stale("The form does not carry this session's token.")


async def read_form(request: Asked) -> dict[str, str]:
    """Every field once. Raises what says which part does not fit."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise BadRequest("This takes the console's own forms.", fix="Use the page.")
    body = await request.body()
    if len(body) > FORM_BYTES_MAX:
        raise TooLarge("The form is too large.", fix="Send less than 64 KiB.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=FIELDS_MAX,
            encoding="utf-8",
            errors="strict",
        )
    except (ValueError, UnicodeError):
        raise BadRequest("The form cannot be read.", fix="Use the page.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise BadRequest("The form has a field twice.", fix="Use the page.")
    if any("\0" in value for value in form.values()):
        raise BadRequest("A field contains a character that cannot be stored.", fix="Take it out.")
    return {name: value.replace("\r\n", "\n") for name, value in form.items()}
