"""The commands that show what happens: the project's events, and its requests."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from app.cli.run import client, fail, run
from app.cli.times import time_of

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


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep going, as requests come.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only those answered with 4xx or 5xx.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many to begin with.")] = 50,
    json_: JsonLines = False,
) -> None:
    """Show the project's requests to the API and how long they took.

    Method, route, status, time, request id and key; no bodies. Those of three days, a second or two after they were answered.

    \b
    Example:
      voxplane logs --failed
      voxplane logs --follow
    """

    def show(request: dict[str, Any]) -> None:
        if json_:
            typer.echo(json.dumps(request))
            return
        if request["left_out"]:
            typer.echo(f"  … {request['left_out']} more, not kept")
        typer.echo(
            f"{request['at']}  {request['status']}  {request['duration_ms']:>5} ms  {request['method']:<6} "
            f"{request['route']:<40} {request['request_id']}  {request['key_id']}"
        )

    async def work() -> None:
        async with client() as api:
            params: dict[str, Any] = {"limit": limit, "failed": "true" if failed else None}
            page = await api.request("GET", "/v1/requests", params=params)
            seen: dict[str, None] = {}
            while True:
                for request in reversed(page["data"]):
                    name = f"{request['at']} {request['request_id']}"
                    if name not in seen and not (follow and _is_ours(request)):
                        seen[name] = None
                        show(request)
                if not follow:
                    return
                seen = dict(list(seen.items())[-1_000:])
                await asyncio.sleep(1)
                page = await api.request("GET", "/v1/requests", params=params | {"limit": 200})

    run(work)


def _is_ours(request: dict[str, Any]) -> bool:
    """The question for the log itself, which would fill it."""
    return bool(request["route"] == "/v1/requests")
