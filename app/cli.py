"""The one console command, ``voxplane``. Decides how a command is written and what it prints; the work is done elsewhere.

Heavy parts are imported by the command that needs them, so that `--help` is quick and an edge needs no control plane.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from app.cli_call import call_app, place
from app.cli_drill import drill, drills_app
from app.cli_fleet import edges_app, move, regions_app
from app.cli_run import client, fail, run
from app.cli_webhooks import listen, replay, trigger, webhooks_app

EXIT_CODES = """\b
Exit codes:
  0    done
  1    it was tried and failed: nothing answers, or it was refused
  2    an argument or a setting is wrong or missing
  130  interrupted"""

app = typer.Typer(
    name="voxplane",
    help="A multi-region session control plane for voice AI.\n\nStart with `voxplane demo`, then `voxplane up`.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
keys_app = typer.Typer(
    help="Create, list and revoke the project's keys.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(keys_app, name="keys")
app.add_typer(call_app, name="call")
app.add_typer(regions_app, name="regions")
app.add_typer(edges_app, name="edges")
app.add_typer(drills_app, name="drills")
app.add_typer(webhooks_app, name="webhooks")
app.command()(place)
app.command()(move)
app.command()(listen)
app.command()(trigger)
app.command()(replay)
app.command()(drill)

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


@app.command()
def up(
    regions: Annotated[int, typer.Option(min=1, max=6, help="How many regions.")] = 3,
    instances: Annotated[int, typer.Option(min=1, max=8, help="How many API instances.")] = 2,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65_000, help="The API's ports begin here, the edges' 10 above; 0: any that are free."
        ),
    ] = 8080,
    ha: Annotated[
        bool,
        typer.Option(
            "--ha", help="PostgreSQL on three servers under Patroni (needs etcd), any of which may die."
        ),
    ] = False,
) -> None:
    """Run a whole deployment on this machine, until Ctrl-C.

    PostgreSQL, a Valkey per region, API instances and edges, each a process of its own; one that dies is started again.
    The data stay in VOXPLANE_DATA (default ~/.local/state/voxplane, as root /var/lib/voxplane). DATABASE_URL and
    REDIS_URLS, where set, name servers of yours instead.

    \b
    Example:
      voxplane up --regions 2 --port 9000
    """
    from app.local.up import up as start

    run(lambda: start(regions=regions, instances=instances, port=port, ha=ha))


@app.command()
def demo(json_: JsonFlag = False) -> None:
    """Watch a real call survive the death of a region.

    Half a minute; starts everything it needs in a temporary folder and leaves nothing behind. Fails if anything was lost or doubled.

    \b
    Example:
      voxplane demo --json | jq .figures
    """
    from app.local.demo import demo as show

    lost: list[bool] = []

    async def work() -> None:
        lost.append(not await show(as_json=json_))

    run(work)
    raise typer.Exit(1 if lost[0] else 0)


@app.command()
def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep going, as events happen.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document per line, for machines.")] = False,
) -> None:
    """Show the project's events.

    \b
    Example:
      voxplane events --follow --json | jq .type
    """

    def show(event: dict[str, Any]) -> None:
        if json_:
            typer.echo(json.dumps(event))
            return
        typer.echo(
            f"{event['timestamp']}  {event['call_id']}  {event['seq']:>4}  {event['type']:<22} "
            f"{event['region'] or '':<12} {json.dumps(event['data'])[:120]}"
        )

    def following() -> None:
        typer.echo("voxplane: following, until Ctrl-C", err=True)

    async def work() -> None:
        async with client() as api:
            if follow:
                # the stream waits out a server that is away: say at once where it was never there
                await api.request("GET", "/v1/events", params={"limit": 1})
                async for event in api.stream_events(opened=following):
                    show(event)
            else:
                cursor = None
                while (
                    page := await api.request("GET", "/v1/events", params={"cursor": cursor, "limit": 200})
                )["data"]:
                    for event in page["data"]:
                        show(event)
                    cursor = page["next_cursor"]

    run(work)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[str, typer.Option(help="owner, admin, developer or viewer.")] = "developer",
    json_: JsonFlag = False,
) -> None:
    """Create a key; its secret is shown this once.

    \b
    Example:
      voxplane keys create "billing service" --role viewer
    """

    async def work() -> None:
        async with client() as api:
            made = await api.request("POST", "/v1/keys", {"name": name, "role": role})
        typer.echo(json.dumps(made) if json_ else f"{made['id']}  {made['role']}\n{made['secret']}")

    run(work)


@keys_app.command("list")
def keys_list(json_: JsonFlag = False) -> None:
    """List the project's keys, without their secrets.

    \b
    Example:
      voxplane keys list
    """

    async def work() -> None:
        async with client() as api:
            found = (await api.request("GET", "/v1/keys"))["data"]
        if json_:
            typer.echo(json.dumps(found))
            return
        for key in found:
            state = "revoked" if key["revoked_at"] else "live"
            typer.echo(f"{key['id']}  {key['role']:<10} …{key['hint']}  {state:<8} {key['name']}")

    run(work)


@keys_app.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(help="key_…")]) -> None:
    """Revoke a key, everywhere within seconds.

    \b
    Example:
      voxplane keys revoke key_01j…   (`voxplane keys list` shows the ids)
    """

    async def work() -> None:
        async with client() as api:
            await api.request("DELETE", f"/v1/keys/{key_id}")
        typer.echo("revoked")

    run(work)


@app.command()
def serve() -> None:
    """Run one instance of the control plane.

    Its settings come from the environment:

    \b
      DATABASE_URL               postgresql://user:password@host:port/database  (required)
      REDIS_URLS                 us-east=redis://host:6379,eu-west=redis://…    (hints, tails, spools)
      VOXPLANE_OPERATOR_KEY      the platform's own key, vx_op_…
      VOXPLANE_HOST, _PORT       where to listen (127.0.0.1, 8080)
      VOXPLANE_UPLINK_URLS       how edges reach the instances: ws://host:port,…
      VOXPLANE_DATA              holds the master key; all instances need the same
      VOXPLANE_LOG_FORMAT        json or console
      VOXPLANE_ATTACH_WITHIN_S   seconds in which a caller must attach (120)
      VOXPLANE_LOST_AFTER_S      seconds until a call without its caller or edge is looked into (45)
      VOXPLANE_CELL              this deployment's number in every id (0)
      VOXPLANE_DELIVERIES        0: this instance sends no webhooks
      VOXPLANE_EGRESS_PROXY      http://host:port, through which webhooks leave
      VOXPLANE_NETWORKS_KEPT_DAYS    days for which round trips of networks are kept (30)
      VOXPLANE_GEO_FILES         files in MaxMind's format, for placement: path:path
      VOXPLANE_ALLOW_LOCAL_TARGETS   1: test projects may name ws:// and http:// on loopback
      DATABASE_URL_API, _KEYS, _APPEND, _WORKER, _ADMIN   a login of its own for a role

    \b
    Example, after `voxplane migrate`:
      DATABASE_URL=postgresql://voxplane:secret@db/voxplane voxplane serve
    """
    from app import telemetry
    from app.preflight import check_instance
    from app.server import serve_until_told
    from app.settings import Settings, SettingsError

    try:
        settings = Settings.from_env()
    except SettingsError as error:
        raise fail(str(error), 2) from None
    run(lambda: check_instance(settings))
    telemetry.configure(settings.log_format)
    serve_until_told(settings)


@app.command()
def edge() -> None:
    """Run one edge, which carries calls.

    Its settings come from the environment:

    \b
      VOXPLANE_REGION            the region's id, such as us-east               (required)
      VOXPLANE_EDGE_NAME         unique in the region, such as edge-1           (required)
      VOXPLANE_CONTROL_URLS      http://host:port,… of the instances            (required)
      VOXPLANE_EDGE_TOKEN        from POST /admin/v1/regions/{id}/enrol         (the first time)
      VOXPLANE_EDGE_DATA         holds the edge's key
      VOXPLANE_MEDIA_HOST, _PORT, VOXPLANE_PUBLIC_MEDIA_URL   where callers attach
      VOXPLANE_HTTP_HOST, _PORT, VOXPLANE_PUBLIC_HTTP_URL     probes, health, metrics
      VOXPLANE_REDIS_URL         the region's Valkey, where it is not what the control plane says
      VOXPLANE_CAPACITY          calls at once (50)
      VOXPLANE_DRAIN_S           seconds for its calls to move when it is told to stop (30)

    \b
    Example:
      VOXPLANE_REGION=us-east VOXPLANE_EDGE_NAME=edge-1 \\
      VOXPLANE_CONTROL_URLS=http://127.0.0.1:8080 VOXPLANE_EDGE_TOKEN=… voxplane edge
    """
    os.execv(sys.executable, [sys.executable, "-m", "regions.edge"])


@app.command()
def migrate() -> None:
    """Bring a database to the newest schema.

    The one in DATABASE_URL; doing it twice changes nothing.

    \b
    Example:
      DATABASE_URL=postgresql://voxplane:secret@db/voxplane voxplane migrate
    """
    from app.migrate import migrate as upgrade
    from app.preflight import check_database, migration_failure

    url = os.environ.get("DATABASE_URL", "")
    if not url:
        raise fail("set DATABASE_URL to postgresql://user:password@host:port/database", 2)

    async def work() -> None:
        await check_database(url)
        async with migration_failure():
            await upgrade(url)

    run(work)
    typer.echo("the schema is up to date")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
