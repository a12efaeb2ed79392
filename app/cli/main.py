"""The one console command, ``voxplane``. Decides how a command is written and what it prints; the work is done elsewhere.

Heavy parts are imported by the command that needs them, so that `--help` is quick and an edge needs no control plane.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from app.cli.audit import audit_app
from app.cli.call import call_app, place
from app.cli.calls import calls_app
from app.cli.drill import drill, drills_app
from app.cli.erasures import erasures_app
from app.cli.events import events, logs
from app.cli.fleet import edges_app, move, regions_app
from app.cli.fleet_keys import fleet_keys_app, rotate_master
from app.cli.hooks import webhooks_app
from app.cli.keys import keys_app
from app.cli.listing import Listing
from app.cli.members import agent_secret_app, members_app
from app.cli.people import console, people_app
from app.cli.platform import fleet_app
from app.cli.privacy import privacy_app
from app.cli.projects import projects_app
from app.cli.quotas import quotas_app
from app.cli.run import fail, run
from app.cli.targets import targets_app
from app.cli.usage import usage_app
from app.cli.webhooks import listen, replay, trigger
from app.release import release

EXIT_CODES = """\b
Exit codes:
  0    done
  1    it was tried and failed: nothing answers, or it was refused
  2    an argument or a setting is wrong or missing
  130  interrupted (Ctrl-C) before it was done
  143  told to stop (SIGTERM) before it was done"""

app = typer.Typer(
    cls=Listing,
    name="voxplane",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(projects_app, name="projects")
app.add_typer(people_app, name="people")
app.add_typer(keys_app, name="keys")
app.add_typer(quotas_app, name="quotas")
keys_app.command("rotate-master")(rotate_master)
app.add_typer(fleet_keys_app, name="fleet-keys")
app.add_typer(usage_app, name="usage")
app.add_typer(call_app, name="call")
app.add_typer(calls_app, name="calls")
app.add_typer(erasures_app, name="erasures")
app.add_typer(privacy_app, name="privacy")
app.add_typer(members_app, name="members")
app.add_typer(agent_secret_app, name="agent-secret")
app.add_typer(fleet_app, name="fleet")
app.add_typer(audit_app, name="audit")
app.add_typer(regions_app, name="regions")
app.add_typer(edges_app, name="edges")
app.add_typer(drills_app, name="drills")
app.add_typer(webhooks_app, name="webhooks")
app.command()(place)
app.command()(console)
app.add_typer(targets_app, name="targets")
app.command()(move)
app.command()(events)
app.command()(logs)
app.command()(listen)
app.command()(trigger)
app.command()(replay)
app.command()(drill)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    if not (known := release()):
        raise fail("these files were not installed, so no version is known: pip install .")
    typer.echo(f"voxplane {known}")
    raise typer.Exit


@app.callback()
def voxplane(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit."),
    ] = False,
) -> None:
    """A multi-region session control plane for voice AI.

    Start with `voxplane demo`, then `voxplane up`.
    """


JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


@app.command()
def up(
    regions: Annotated[int, typer.Option(min=1, max=6, help="How many regions.")] = 3,
    instances: Annotated[int, typer.Option(min=1, max=8, help="How many API instances.")] = 2,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65_000,
            help="The API's ports begin here, the edges' 10 and 20 above; 0: any that are free.",
        ),
    ] = 8080,
    ha: Annotated[
        bool,
        typer.Option(
            "--ha", help="PostgreSQL on three servers under Patroni (needs etcd), any of which may die."
        ),
    ] = False,
    cells: Annotated[
        int, typer.Option(min=1, max=4, help="So many cells, a PostgreSQL each: in us, eu, in, …")
    ] = 1,
    tls: Annotated[
        bool,
        typer.Option("--tls", help="TLS on every listener, with an authority of this machine's own."),
    ] = False,
) -> None:
    """Run a whole deployment on this machine, until Ctrl-C.

    PostgreSQL, a Valkey per region, API instances and edges, each a process of its own; one that dies is started again.
    Ends with 0 when it is told to stop, with 130 or 143 where it was not ready yet.
    The data stay in VOXPLANE_DATA (default ~/.local/state/voxplane, as root /var/lib/voxplane). DATABASE_URL and
    REDIS_URLS, where set, name servers of yours instead.

    \b
    Example:
      voxplane up --regions 2 --port 9000
    """
    from app.local.up import up as start

    run(lambda: start(regions=regions, instances=instances, port=port, ha=ha, cells=cells, tls=tls))


@app.command()
def demo(
    json_: JsonFlag = False,
    tls: Annotated[bool, typer.Option("--tls", help="With TLS on every listener, as `up --tls`.")] = False,
) -> None:
    """Watch a real call survive the death of a region.

    Half a minute; starts everything it needs in a temporary folder and leaves nothing behind. Fails if anything was lost or doubled.

    \b
    Example:
      voxplane demo --json | jq .figures
    """
    from app.local.demo import demo as show

    lost: list[bool] = []

    async def work() -> None:
        lost.append(not await show(as_json=json_, tls=tls))

    run(work)
    raise typer.Exit(1 if lost[0] else 0)


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
      VOXPLANE_TLS_CERT, _KEY    serve with TLS: a certificate and its key, in PEM; renewed files are taken as they come
      VOXPLANE_DATA              holds the master key; all instances need the same
      VOXPLANE_LOG_FORMAT        json or console
      VOXPLANE_ATTACH_WITHIN_S   seconds in which a caller must attach (120)
      VOXPLANE_LOST_AFTER_S      seconds until a call without its caller or edge is looked into (45)
      CELLS                      0=us,1=eu: the cells, the home cell first, and where their logs lie
      DATABASE_URL_CELL_<n>      the database of each other cell; with _API, _KEYS, … as below
      VOXPLANE_CELL              the one cell's number in every id, without CELLS (0)
      VOXPLANE_JURISDICTION      where this instance runs, such as de,eu: webhooks that must be sent from elsewhere are left to others
      VOXPLANE_EVENTS_KEPT_DAYS  events and deliveries are dropped after so many (30)
      VOXPLANE_CALLS_KEPT_DAYS   calls that have ended, after so many (90)
      VOXPLANE_AUDIT_KEPT_DAYS   entries of the audit log, after so many (400)
      VOXPLANE_DEFAULT_QUOTAS    concurrent_calls=100,creates_per_s=10,…: of projects for which nobody has set any
      VOXPLANE_DELIVERIES        0: this instance sends no webhooks
      VOXPLANE_EGRESS_PROXY      http://host:port, through which webhooks leave
      VOXPLANE_NETWORKS_KEPT_DAYS    days for which round trips of networks are kept (30)
      VOXPLANE_GEO_FILES         files in MaxMind's format, for placement: path:path
      VOXPLANE_CONSOLE_URL       where people reach the console, https://…; without it, as they ask for it
      VOXPLANE_OIDC_ISSUER, _CLIENT_ID, _CLIENT_SECRET (or _CLIENT_SECRET_FILE), _NAME   the provider that people sign in by
      VOXPLANE_LOCAL_ACCOUNTS    1: people may sign in with a password too; 0: not (1 without a provider)
      VOXPLANE_ALLOW_LOCAL_TARGETS   1: test projects may name ws:// and http:// on loopback
      VOXPLANE_ALLOW_PROJECT_TARGETS 1: test projects may list inner hosts for their webhooks
      OTEL_EXPORTER_OTLP_ENDPOINT    traces of calls go there (see docs/how-to/observe.md)
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
    try:
        serve_until_told(settings)
    except SettingsError as error:
        raise fail(str(error), 2) from None


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
      VOXPLANE_TLS_CERT, _KEY    of both listeners, in PEM; renewed files are taken as they come
      VOXPLANE_CA_FILE           CA certificates to trust beside the machine's
      VOXPLANE_REDIS_URL         the region's Valkey, where it is not what the control plane says
      VOXPLANE_CAPACITY          calls at once (50)
      VOXPLANE_DRAIN_S           seconds for its calls to move when it is told to stop (30)
      VOXPLANE_EDGE_KEY_DAYS     how old its own key becomes before it takes another one (30; 0: never by itself)

    \b
    Example:
      VOXPLANE_REGION=us-east VOXPLANE_EDGE_NAME=edge-1 \\
      VOXPLANE_CONTROL_URLS=http://127.0.0.1:8080 VOXPLANE_EDGE_TOKEN=… voxplane edge
    """
    os.execv(sys.executable, [sys.executable, "-m", "regions.edge"])


@app.command()
def migrate() -> None:
    """Bring the databases to the newest schema.

    The one in DATABASE_URL and, where CELLS names more, each of theirs; doing it twice changes nothing. A database remembers which
    cell it is from then on.

    \b
    Example:
      DATABASE_URL=postgresql://voxplane:secret@db/voxplane voxplane migrate
    """
    from app.migrate import migrate as upgrade
    from app.preflight import check_cell, check_database, migration_failure
    from app.settings import Settings, SettingsError

    try:
        cells = Settings.from_env().all_cells
    except SettingsError as error:
        raise fail(str(error), 2) from None

    async def work() -> None:
        for cell in cells:
            await check_database(cell.url, name=cell.variable)
            async with migration_failure():
                await upgrade(cell.url)
            await check_cell(cell)

    run(work)
    typer.echo("the schema is up to date")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
