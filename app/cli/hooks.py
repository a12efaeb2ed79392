"""More of ``voxplane webhooks``: an endpoint by itself, what was sent to it, and what is sent again.

Decides how these commands are written and what they print.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.run import fail, named
from app.cli.show import JsonFlag, Limit, ask, ask_list, table
from app.cli.webhooks import HookId, Types, webhooks_app

NONE = "none"
CLEARED = ("types", "metadata", "headers", "rate_per_s", "concurrency")


@webhooks_app.command("show")
def show(hook: HookId, json_: JsonFlag = False) -> None:
    """Show one endpoint with all its settings; never its secret.

    \b
    Example:
      voxplane webhooks show whk_01j…
    """
    ask("GET", f"/v1/webhooks/{named(hook)}", json_=json_)


@webhooks_app.command("change")
def change(
    hook: HookId,
    url: Annotated[str | None, typer.Option(help="Where to send events from now on.")] = None,
    types: Types = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Send to it, or not.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", metavar="NAME=VALUE", help="Only of calls with this; repeat it for several."
        ),
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option(
            "--header", metavar="NAME:VALUE", help="Sent with every request, in place of all before."
        ),
    ] = None,
    signatures: Annotated[
        list[str] | None, typer.Option("--signature", help="v1, v1a; repeat it for both.")
    ] = None,
    rate: Annotated[str | None, typer.Option(metavar="N", help="At most so many requests a second.")] = None,
    concurrency: Annotated[str | None, typer.Option(metavar="N", help="At most so many at once.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="voxplane or cloudevents.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Change an endpoint; what is not named stays.

    `none` takes away what is set: --rate none, --metadata none. With --types none it gets events of all types.

    \b
    Example:
      voxplane webhooks change whk_01j… --enable --rate 20 --header "X-Tenant: acme"
    """
    given: dict[str, Any] = {
        "url": url, "description": description, "enabled": enabled, "types": types, "signatures": signatures, "format": format_,
        "metadata": metadata and _pairs(metadata, "--metadata", "="), "headers": headers and _pairs(headers, "--header", ":"),
        "rate_per_s": rate and _number(rate, "--rate"), "concurrency": concurrency and _number(concurrency, "--concurrency"),
    }  # fmt: skip
    body = {
        name: None if name in CLEARED and value in (NONE, [NONE]) else value
        for name, value in given.items()
        if value is not None
    }
    if not body:
        raise fail(
            "name what is to be changed, such as --url, --types, --rate or --disable; --help lists all", 2
        )
    ask("PATCH", f"/v1/webhooks/{named(hook)}", body, json_=json_)


def _pairs(written: list[str], option: str, mark: str) -> dict[str, str] | str:
    if written == [NONE]:
        return NONE
    found: dict[str, str] = {}
    for pair in written:
        name, given, value = pair.partition(mark)
        if not given or not name.strip():
            raise fail(f"{option} is NAME{mark}VALUE, or {NONE}", 2)
        found[name.strip()] = value.strip()
    return found


def _number(text: str, option: str) -> int | str:
    if text == NONE:
        return NONE
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise fail(f"{option} is a whole number, or {NONE}", 2)
    return int(text)


@webhooks_app.command("attempts")
def attempts(hook: HookId, limit: Limit = 50, json_: JsonFlag = False) -> None:
    """Show the attempts to deliver, the newest first.

    \b
    Example:
      voxplane webhooks attempts whk_01j… --json | jq '.[] | select(.status != 200)'
    """
    ask_list(
        f"/v1/webhooks/{named(hook)}/attempts", "at", "call_id", "event_seq", "attempt", "status", "error", "duration_ms",
        json_=json_, limit=limit,
    )  # fmt: skip


@webhooks_app.command("deliveries")
def deliveries(
    hook: HookId,
    state: Annotated[
        str | None, typer.Option(help="waiting, in_flight, parked, delivered or failed.")
    ] = None,
    limit: Limit = 50,
    json_: JsonFlag = False,
) -> None:
    """Show deliveries and their states, those of the newest calls first.

    \b
    Example:
      voxplane webhooks deliveries whk_01j… --state failed
    """
    path, params = f"/v1/webhooks/{named(hook)}/deliveries", {"state": state}
    ask_list(path, "call_id", "event_seq", "state", "attempts", json_=json_, limit=limit, params=params)


@webhooks_app.command("replays")
def replays(
    hook: HookId,
    replay: Annotated[str | None, typer.Argument(help="rpl_…: of this one alone.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Show what is or was sent again; `voxplane replay` begins one.

    \b
    Example:
      voxplane webhooks replays whk_01j…
    """
    if replay is not None:
        ask("GET", f"/v1/webhooks/{named(hook)}/replays/{named(replay)}", json_=json_)
        return
    ask("GET", f"/v1/webhooks/{named(hook)}/replays", json_=json_,
        shown=lambda page: table(page["data"], "id", "state", "what", "since", "queued", "waiting"))  # fmt: skip


@webhooks_app.command("cancel")
def cancel(
    hook: HookId, replay: Annotated[str, typer.Argument(help="rpl_…")], json_: JsonFlag = False
) -> None:
    """Queue nothing more of a replay; what is queued is still sent.

    \b
    Example:
      voxplane webhooks cancel whk_01j… rpl_01j…
    """
    ask("POST", f"/v1/webhooks/{named(hook)}/replays/{named(replay)}/cancel", json_=json_)


@webhooks_app.command("signing-secret")
def signing_secret(json_: JsonFlag = False) -> None:
    """Show the secret that signs what goes to the webhook_url of calls. The audit log keeps who has looked.

    \b
    Example:
      voxplane webhooks signing-secret
    """
    ask("GET", "/v1/webhooks/signing-secret", json_=json_, shown=lambda found: str(found["secret"]))


__all__ = ["webhooks_app"]
