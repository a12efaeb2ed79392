"""The commands that show what happens: the project's events."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli_run import client, fail, run
from app.cli_times import time_of

JsonLines = Annotated[bool, typer.Option("--json", help="One JSON document per line, for machines.")]


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep going, as events happen.")] = False,
    since: Annotated[
        str, typer.Option(help="Begin with what was stored then: 10m, 2h, 7d ago, or RFC 3339.")
    ] = "",
    until: Annotated[str, typer.Option(help="End before what was stored then.")] = "",
    types: Annotated[
        list[str] | None,
        typer.Option("--types", "-t", help="As call.ended or 'call.*'; repeat it for several."),
    ] = None,
    json_: JsonLines = False,
) -> None:
    """Show the project's events.

    \b
    Example:
      voxplane events --since 10m
      voxplane events --follow --json | jq .type
    """
    if follow and until:
        raise fail("--follow has no end: leave --until out", 2)
    chosen: dict[str, Any] = {"types": types, "since": time_of(since, "--since") if since else None}

    def show(event: dict[str, Any]) -> None:
        if json_:
            typer.echo(json.dumps(event))
            return
        typer.echo(
            f"{event['timestamp']}  {event['call_id']}  {event.get('seq') or '':>4}  {event['type']:<22} "
            f"{event['region'] or '':<12} {json.dumps(event['data'])[:120]}"
        )

    def following() -> None:
        typer.echo("voxplane: following, until Ctrl-C", err=True)

    async def work() -> None:
        async with client() as api:
            if follow:
                # the stream waits out a server that is away: say at once where it was never there
                await api.request("GET", "/v1/events", params={"limit": 1})
                async for event in api.stream_events(opened=following, **chosen):
                    show(event)
            else:
                async for event in api.events(until=time_of(until, "--until") if until else None, **chosen):
                    show(event)

    run(work)
