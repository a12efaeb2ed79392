"""More of ``voxplane webhooks``: an endpoint by itself, what was sent to it, and what is sent again.

Decides how these commands are written and what they print.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.run import fail
from app.cli.show import JsonFlag, Limit, ask, ask_list, table
from app.cli.webhooks import HookId, Types, webhooks_app


@webhooks_app.command("show")
def show(hook: HookId, json_: JsonFlag = False) -> None:
    """Show one endpoint with all its settings; never its secret.

    \b
    Example:
      voxplane webhooks show whk_01j…
    """
    ask("GET", f"/v1/webhooks/{hook}", json_=json_)


@webhooks_app.command("change")
def change(
    hook: HookId,
    url: Annotated[str | None, typer.Option(help="Where to send events from now on.")] = None,
    types: Types = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Send to it, or not.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Change an endpoint; what is not named stays.

    \b
    Example:
      voxplane webhooks change whk_01j… --enable
    """
    given: dict[str, Any] = {"url": url, "types": types, "enabled": enabled, "description": description}
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise fail("name what is to be changed: --url, --types, --enable, --disable or --description", 2)
    ask("PATCH", f"/v1/webhooks/{hook}", body, json_=json_)


@webhooks_app.command("attempts")
def attempts(hook: HookId, limit: Limit = 50, json_: JsonFlag = False) -> None:
    """Show the attempts to deliver, the newest first.

    \b
    Example:
      voxplane webhooks attempts whk_01j… --json | jq '.[] | select(.status != 200)'
    """
    ask_list(
        f"/v1/webhooks/{hook}/attempts", "at", "call_id", "event_seq", "attempt", "status", "error", "duration_ms",
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
    path, params = f"/v1/webhooks/{hook}/deliveries", {"state": state}
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
        ask("GET", f"/v1/webhooks/{hook}/replays/{replay}", json_=json_)
        return
    ask("GET", f"/v1/webhooks/{hook}/replays", json_=json_,
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
    ask("POST", f"/v1/webhooks/{hook}/replays/{replay}/cancel", json_=json_)


@webhooks_app.command("signing-secret")
def signing_secret(json_: JsonFlag = False) -> None:
    """Show the secret that signs what goes to the webhook_url of calls. The audit log keeps who has looked.

    \b
    Example:
      voxplane webhooks signing-secret
    """
    ask("GET", "/v1/webhooks/signing-secret", json_=json_, shown=lambda found: str(found["secret"]))


__all__ = ["webhooks_app"]
