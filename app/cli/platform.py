"""What operators do besides: ``voxplane fleet``, and more of ``regions``, ``edges``, ``projects``, ``people`` and ``usage``.

Decides how these commands are written and what they print; what may be done is the API's to say.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.fleet import edges_app, regions_app
from app.cli.listing import Listing
from app.cli.people import people_app
from app.cli.projects import projects_app
from app.cli.run import client, fail, named, operator, run
from app.cli.show import JsonFlag, Limit, ask, table
from app.cli.usage import usage_app

Region = Annotated[str, typer.Argument(help="Its id, such as eu-west.", metavar="REGION")]
Project = Annotated[str, typer.Argument(help="prj_…: `voxplane projects list` shows them.", metavar="PROJECT")]  # fmt: skip
Person = Annotated[str, typer.Argument(help="E-mail address or id.", metavar="PERSON")]

fleet_app = typer.Typer(
    cls=Listing, help="The deployment as a whole, for operators.", no_args_is_help=True, rich_markup_mode=None
)


@fleet_app.command("status")
def status(json_: JsonFlag = False) -> None:
    """Show whether the instance that answers is ready, and what is wrong where it is not.

    \b
    Example:
      voxplane fleet status --json
    """
    from voxplane import ApiError

    async def work() -> None:
        async with client() as api:
            try:
                found = await api.request("GET", "/readyz")
            except ApiError as error:
                found = error.problem
        typer.echo(json.dumps(found) if json_ else "\n".join(f"{k}  {json.dumps(v)}" for k, v in found.items()))  # fmt: skip

    run(work)


@fleet_app.command("events")
def events(
    types: Annotated[
        list[str] | None, typer.Option("--types", "-t", help="Such as region.down; repeat it for several.")
    ] = None,
    limit: Limit = 1000,
    json_: JsonFlag = False,
) -> None:
    """Show what happened to regions and edges, the oldest first.

    \b
    Example:
      voxplane fleet events --types region.down
    """  # fmt: skip
    params: dict[str, Any] = {"types": types, "limit": 200}

    async def work() -> None:
        found: list[Any] = []
        async with operator() as api:
            while len(found) < limit:
                page = await api.request("GET", "/admin/v1/events", params=params)
                found += page["data"]
                params["cursor"] = page["next_cursor"]
                if not page["data"]:
                    break
        shown = found[:limit]
        typer.echo(json.dumps(shown) if json_ else table(shown, "timestamp", "type", "region", "edge", "data"))  # fmt: skip

    run(work)


@fleet_app.command("drains")
def drains(json_: JsonFlag = False) -> None:
    """Show drains and evacuations of all regions and edges, whoever began them.

    \b
    Example:
      voxplane fleet drains
    """
    ask("GET", "/admin/v1/drains", json_=json_, platform=True, shown=lambda page: table(
        page["data"], "region", "edge", "kind", "by", "state", "left", "total", "started_at"))  # fmt: skip


@fleet_app.command("waiting")
def waiting(json_: JsonFlag = False) -> None:
    """Show calls that wait to be declared over, and whom they wait for.

    \b
    Example:
      voxplane fleet waiting
    """
    ask("GET", "/admin/v1/calls/waiting", json_=json_, platform=True,
        shown=lambda page: table(page["data"], "call_id", "reason", "since", "grants_expire_at"))  # fmt: skip


@regions_app.command("create")
def region_create(
    region: Region,
    jurisdiction: Annotated[str, typer.Argument(help="Where it lies, such as eu.")],
    name: Annotated[str, typer.Option(help="As it is shown.")] = "",
    latitude: Annotated[float, typer.Option(min=-90, max=90, help="In degrees.")] = 0.0,
    longitude: Annotated[float, typer.Option(min=-180, max=180, help="In degrees.")] = 0.0,
    json_: JsonFlag = False,
) -> None:
    """Add a region; edges are enrolled in it afterwards.

    \b
    Example:
      voxplane regions create eu-west eu --latitude 53.3 --longitude -6.2
    """
    body = {
        "id": region, "jurisdiction": jurisdiction, "name": name, "latitude": latitude, "longitude": longitude,
    }  # fmt: skip
    ask("POST", "/admin/v1/regions", body, json_=json_, platform=True)


@regions_app.command("change")
def region_change(
    region: Region,
    name: Annotated[str | None, typer.Option(help="As it is shown.")] = None,
    weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="The share of new calls it takes part in.")
    ] = None,
    proximity: Annotated[
        str | None, typer.Option(help="Regions with the same word are as near as each other.")
    ] = None,
    price_ms: Annotated[
        float | None, typer.Option(min=0, max=1000, help="So much nearer it has to be.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Change a region; what is not named stays.

    \b
    Example:
      voxplane regions change eu-west --weight 0.2
    """
    given = {"name": name, "weight": weight, "proximity": proximity, "price_ms": price_ms}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise fail("name what is to be changed: --name, --weight, --proximity or --price-ms", 2)

    ask("PATCH", f"/admin/v1/regions/{named(region)}", body, json_=json_, platform=True, if_match="*")


@regions_app.command("enrol")
def region_enrol(region: Region, json_: JsonFlag = False) -> None:
    """Make a token by which one edge joins the region, within minutes (VOXPLANE_EDGE_TOKEN).

    \b
    Example:
      VOXPLANE_EDGE_TOKEN=$(voxplane regions enrol eu-west) voxplane edge
    """
    ask("POST", f"/admin/v1/regions/{named(region)}/enrol", json_=json_, platform=True, shown=lambda t: str(t["token"]))  # fmt: skip


@edges_app.command("health")
def edge_health(
    edge: Annotated[str, typer.Argument(help="edge_…: `voxplane edges` shows them.")], json_: JsonFlag = False
) -> None:
    """Show what is held of an edge, and why.

    \b
    Example:
      voxplane edges health edge_01j… --json | jq .signals
    """
    ask("GET", f"/admin/v1/edges/{named(edge)}/health", json_=json_, platform=True)


@projects_app.command("show")
def project_show(project: Project, json_: JsonFlag = False) -> None:
    """Show one project.

    \b
    Example:
      voxplane projects show prj_01j…
    """
    ask("GET", f"/admin/v1/projects/{named(project)}", json_=json_, platform=True)


@projects_app.command("key")
def project_key(
    project: Project,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[
        str, typer.Option(help="owner, admin, developer, operator, viewer or billing.")
    ] = "owner",
    json_: JsonFlag = False,
) -> None:
    """Make a key for a project, such as for one that has lost its last owner's; its secret is shown this once.

    \b
    Example:
      voxplane projects key prj_01j… "way back in"
    """  # fmt: skip
    path, body = f"/admin/v1/projects/{named(project)}/keys", {"name": name, "role": role}
    ask("POST", path, body, json_=json_, platform=True, shown=lambda key: f"{key['id']}\n{key['secret']}")


@people_app.command("show")
def person_show(person: Person, json_: JsonFlag = False) -> None:
    """Show one account: its projects, its ways in.

    \b
    Example:
      voxplane people show ada@example.com
    """
    ask("GET", f"/admin/v1/people/{named(person)}", json_=json_, platform=True)


@people_app.command("change")
def person_change(
    person: Person,
    is_operator: Annotated[bool, typer.Option("--operator/--no-operator", help="Of the platform.")],
    json_: JsonFlag = False,
) -> None:
    """Make somebody an operator of the platform, or no longer one.

    \b
    Example:
      voxplane people change ada@example.com --no-operator
    """
    ask("PATCH", f"/admin/v1/people/{named(person)}", {"operator": is_operator}, json_=json_, platform=True)


@usage_app.command("refold")
def usage_refold(project: Project, json_: JsonFlag = False) -> None:
    """Fold a project's usage anew from the log; the sums come out the same.

    \b
    Example:
      voxplane usage refold prj_01j…
    """
    ask("POST", f"/admin/v1/projects/{named(project)}/usage/refold", json_=json_, platform=True)
