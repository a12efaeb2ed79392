"""``voxplane quotas``: what a project may use and what it uses; for operators, what it may use from now on.

Decides how limits are written on a command line and what is printed; what a limit may be is the API's to say.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import client, fail, named, operator, run

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
NONE, UNLIMITED = "none", "unlimited"
LISTS = frozenset({"destinations"})

quotas_app = typer.Typer(cls=Listing, invoke_without_command=True, rich_markup_mode=None)


@quotas_app.callback()
def show(context: typer.Context, json_: JsonFlag = False) -> None:
    """What the project and this key may use, and what is used.

    \b
    Example:
      voxplane quotas --json | jq '.use[] | select(.limit != null)'
    """
    if context.invoked_subcommand is not None:
        return

    async def work() -> None:
        async with client() as api:
            found = await api.request("GET", "/v1/quotas")
        if json_:
            typer.echo(json.dumps(found))
            return
        for use in found["use"]:
            limit = "no limit" if use["limit"] is None else use["limit"]
            typer.echo(f"{use['scope']:<8} {use['name']:<17} {use['used']:>8}  of {limit}")
        for scope in ("project", "key"):
            for name in ("max_duration_s", "destinations"):
                if name in found[scope]:
                    typer.echo(f"{scope:<8} {name:<17} {_shown(found[scope][name])}")

    run(work)


@quotas_app.command("set")
def set_(
    project: Annotated[str, typer.Argument(help="prj_…")],
    limits: Annotated[list[str], typer.Argument(help="concurrent_calls=100", metavar="NAME=LIMIT…")],
    json_: JsonFlag = False,
) -> None:
    """Change limits of a project, with the operator's key.

    `none` takes one away, so that the deployment's default holds; `unlimited` takes it away whatever the default is.

    \b
    The names:
      concurrent_calls, creates_per_s, max_duration_s, webhook_backlog: a number
      destinations: countries and `sip`, `premium`, separated by commas

    \b
    Example:
      voxplane quotas set prj_01j… concurrent_calls=100 destinations=US,CA
    """
    change = dict(_read(limit) for limit in limits)
    lifted = {name for name, value in change.items() if value == UNLIMITED}

    async def work() -> None:
        path = f"/admin/v1/projects/{named(project)}/quotas"
        async with operator() as api:
            before = await api.request("GET", path)
            still = set(before["limits"].get("unbounded", ())) - change.keys()
            body = {n: v for n, v in change.items() if n not in lifted} | {
                "unbounded": sorted(still | lifted)
            }
            found = await api.request("PATCH", path, body, if_match=str(before["version"]))
        if json_:
            typer.echo(json.dumps(found))
            return
        own = {n: v for n, v in found["limits"].items() if n != "unbounded"}
        unbounded = found["limits"].get("unbounded", [])
        for name, limit in own.items():
            typer.echo(f"{name:<17} {_shown(limit)}")
        for name in unbounded:
            typer.echo(f"{name:<17} unlimited")
        default = {n: v for n, v in found["default"].items() if n not in own and n not in unbounded}
        for name, limit in default.items():
            typer.echo(f"{name:<17} {_shown(limit)}  (the deployment's default)")
        if not own and not unbounded and not default:
            typer.echo("no limits")

    run(work)


def _read(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise fail(f"{text!r} is not a limit: write NAME=LIMIT, such as concurrent_calls=100", 2)
    if value == NONE:
        return name, None
    if value == UNLIMITED:
        return name, UNLIMITED
    if name in LISTS:
        return name, [part.strip() for part in value.split(",") if part.strip()]
    if not value.isascii() or not value.isdigit():
        raise fail(f"the limit of {name} is a number, `{NONE}` or `{UNLIMITED}`, not {value!r}", 2)
    return name, int(value)


def _shown(limit: Any) -> str:
    return (", ".join(limit) or "nowhere") if isinstance(limit, list) else str(limit)
