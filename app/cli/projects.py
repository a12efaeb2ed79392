"""``voxplane projects``: what operators begin a tenant with.

Decides how these commands are written and what they print; where a project may live is the API's to say.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import operator, run

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]

projects_app = typer.Typer(
    cls=Listing,
    help="Create and list projects, with the operator's key.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@projects_app.command("create")
def projects_create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    live: Annotated[bool, typer.Option("--live", help="Of mode live; else test.")] = False,
    jurisdiction: Annotated[
        str | None, typer.Option(help="Where its log is to lie, such as eu.", metavar="PLACE")
    ] = None,
    cell: Annotated[int | None, typer.Option(min=0, max=4095, help="The cell it is to live in.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Create a project and its first owner's key; the key's secret is shown this once.

    A project stays in its cell: in the one that is named, in the first that lies where it is asked for, else in the home cell.

    \b
    Example:
      voxplane projects create "Hospital" --jurisdiction eu
    """
    body = {"name": name, "mode": "live" if live else "test", "jurisdiction": jurisdiction, "cell": cell}

    async def work() -> None:
        async with operator() as api:
            project = await api.request("POST", "/admin/v1/projects", body)
            first = {"name": "first", "role": "owner"}
            key = await api.request("POST", f"/admin/v1/projects/{project['id']}/keys", first)
        if json_:
            typer.echo(json.dumps(project | {"key": key}))
            return
        typer.echo(f"{_line(project)}\n{key['secret']}")

    run(work)


@projects_app.command("list")
def projects_list(json_: JsonFlag = False) -> None:
    """List the projects of all cells.

    \b
    Example:
      voxplane projects list --json | jq '.data[] | {id, cell}'
    """

    async def work() -> None:
        async with operator() as api:
            found = await api.request("GET", "/admin/v1/projects")
        if json_:
            typer.echo(json.dumps(found))
            return
        for project in found["data"]:
            typer.echo(_line(project))
        for cell in found["cells_away"]:
            typer.echo(f"voxplane: cell {cell} is away: its projects are missing here", err=True)

    run(work)


def _line(project: dict[str, Any]) -> str:
    place = project["jurisdiction"] or "–"
    return f"{project['id']}  {project['mode']:<5} cell {project['cell']:<5} {place:<6} {project['name']}"
