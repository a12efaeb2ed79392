"""``voxplane calls``: calls that are there, whoever placed them. Decides how these commands are written and what they print."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import fail, named
from app.cli.show import JsonFlag, Limit, ask, ask_list
from app.cli.times import time_of

CallId = Annotated[str, typer.Argument(help="call_…: `voxplane calls list` shows them.", metavar="CALL")]

calls_app = typer.Typer(cls=Listing,
    help="List, show and end calls, and read or write what was said.", no_args_is_help=True, rich_markup_mode=None
)  # fmt: skip


@calls_app.command("list")
def calls_list(
    state: Annotated[str | None, typer.Option(help="Such as in_progress or failed.")] = None,
    region: Annotated[str | None, typer.Option(help="The region that carries or carried it.")] = None,
    caller: Annotated[str | None, typer.Option("--from", help="The number it came from.")] = None,
    called: Annotated[str | None, typer.Option("--to", help="The number that was called.")] = None,
    after: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Created since 30m, 24h, 7d ago, or a time.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Created before, written the same way.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="NAME=VALUE", help="With this metadata.")
    ] = None,
    limit: Limit = 50,
    json_: JsonFlag = False,
) -> None:
    """List the project's calls, the newest first.

    \b
    Example:
      voxplane calls list --state failed --after 24h --metadata customer=4711
    """  # fmt: skip
    params: dict[str, Any] = {"state": state, "region": region, "from": caller, "to": called}
    params["created_after"] = time_of(after, "--after") if after else None
    params["created_before"] = time_of(before, "--before") if before else None
    for pair in metadata or []:
        name, given, value = pair.partition("=")
        if not given:
            raise fail("--metadata is NAME=VALUE", 2)
        params[f"metadata.{name}"] = value
    ask_list("/v1/calls", "id", "state", "region", "created_at", "end_reason", json_=json_, limit=limit, params=params)  # fmt: skip


@calls_app.command("show")
def calls_show(call: CallId, json_: JsonFlag = False) -> None:
    """Show one call: its state, where it is, and why it was placed there.

    \b
    Example:
      voxplane calls show call_01j… --json | jq .placement
    """
    ask("GET", f"/v1/calls/{named(call)}", params={"tails": "true"}, json_=json_)


@calls_app.command("end")
def calls_end(call: CallId, json_: JsonFlag = False) -> None:
    """End a call. One that has ended stays as it is.

    \b
    Example:
      voxplane calls end call_01j…
    """
    ask("POST", f"/v1/calls/{named(call)}/end", json_=json_, shown=lambda c: f"{c['id']} is {c['state']}")


@calls_app.command("events")
def calls_events(
    call: CallId,
    after: Annotated[int, typer.Option(help="Behind this seq.")] = 0,
    limit: Limit = 1000,
    json_: JsonFlag = False,
) -> None:
    """Show a call's events, in order.

    \b
    Example:
      voxplane calls events call_01j… --json | jq '.[].type'
    """  # fmt: skip
    ask_list(f"/v1/calls/{named(call)}/events", "seq", "timestamp", "type", "data", json_=json_, limit=limit,
             params={"after": after}, behind="after")  # fmt: skip


@calls_app.command("conversation")
def calls_conversation(
    call: CallId,
    turns: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Show what was said. The audit log keeps who has looked.

    \b
    Example:
      voxplane calls conversation call_01j… --turns 10
    """
    ask("GET", f"/v1/calls/{named(call)}/conversation", params={"turns": turns}, json_=json_)


@calls_app.command("say")
def calls_say(
    call: CallId,
    role: Annotated[str, typer.Argument(help="caller or agent.")],
    text: Annotated[str, typer.Argument(help="What was said.")],
    key: Annotated[str | None, typer.Option(help="Sent again with the same key, it is written once.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Write a turn into the conversation, as a backend does that speaks no text.

    \b
    Example:
      voxplane calls say call_01j… agent "Your order is on its way." --key turn-7
    """
    if key is not None and not (key.isascii() and key.isprintable()):
        raise fail("--key takes letters, digits and signs of ASCII alone", 2)
    body = {"type": "turn", "role": role, "text": text}
    ask("POST", f"/v1/calls/{named(call)}/conversation", body, json_=json_, idempotency_key=key)


@calls_app.command("tool")
def calls_tool(
    call: CallId,
    key: Annotated[str, typer.Argument(help="The key of the tool's call.")],
    json_: JsonFlag = False,
) -> None:
    """Show a tool's call and its result. The audit log keeps who has looked.

    \b
    Example:
      voxplane calls tool call_01j… lookup-1
    """  # fmt: skip
    ask("GET", f"/v1/calls/{named(call)}/tools/{named(key)}", json_=json_)
