"""The one console command, ``voxplane``. Decides how a command is written and what it prints; the work is done elsewhere.

Heavy parts are imported by the command that needs them, so that `--help` is quick and an edge needs no control plane.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="voxplane",
    help="A multi-region session control plane for voice AI.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="Keys of the project.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


def fail(message: str, code: int = 1) -> typer.Exit:
    typer.echo(f"voxplane: {message}", err=True)
    return typer.Exit(code)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `work`; what can go wrong is said in a line."""
    from app.local.process import EngineError
    from app.settings import SettingsError
    from voxplane import VoxplaneError

    try:
        asyncio.run(work())
    except (EngineError, SettingsError, VoxplaneError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def client() -> Any:
    """An `AsyncClient` from VOXPLANE_URL (a list separated by commas) and VOXPLANE_API_KEY, or from a running `up`."""
    from app.local.up import read_profile
    from voxplane import AsyncClient

    profile = read_profile()
    urls = os.environ.get("VOXPLANE_URL") or ",".join(profile.get("urls", []))
    key = os.environ.get("VOXPLANE_API_KEY") or profile.get("key", "")
    if not urls or not key:
        raise fail("set VOXPLANE_URL and VOXPLANE_API_KEY, or start `voxplane up`", 2)
    return AsyncClient([u.strip() for u in urls.split(",")], key)


@app.command()
def serve() -> None:
    """Run one instance of the control plane (settings from the environment)."""
    import uvicorn

    from app import telemetry
    from app.main import create_asgi
    from app.settings import Settings, SettingsError

    try:
        settings = Settings.from_env()
    except SettingsError as error:
        raise fail(str(error), 2) from None
    telemetry.configure(settings.log_format)
    uvicorn.run(
        create_asgi(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=2 << 20,
        ws_ping_interval=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


@app.command()
def edge() -> None:
    """Run one edge (settings from the environment)."""
    os.execv(sys.executable, [sys.executable, "-m", "regions.edge"])


@app.command()
def migrate() -> None:
    """Bring the database in DATABASE_URL to the newest schema."""
    from app.migrate import migrate as upgrade

    url = os.environ.get("DATABASE_URL", "")
    if not url:
        raise fail("set DATABASE_URL", 2)
    run(lambda: upgrade(url))
    typer.echo("the schema is up to date")


@app.command()
def up(
    regions: Annotated[int, typer.Option(min=1, max=6, help="How many regions.")] = 3,
    instances: Annotated[int, typer.Option(min=1, max=8, help="How many API instances.")] = 2,
    port: Annotated[int, typer.Option(help="Ports are taken from here on; 0: any that are free.")] = 8080,
) -> None:
    """A whole deployment on this machine, until Ctrl-C. Data stay in VOXPLANE_DATA."""
    from app.local.up import up as start

    run(lambda: start(regions=regions, instances=instances, port=port))


@app.command()
def demo(json_: JsonFlag = False) -> None:
    """Watch a real call survive the death of a region."""
    from app.local.demo import demo as show

    lost: list[bool] = []

    async def work() -> None:
        lost.append(not await show(as_json=json_))

    run(work)
    raise typer.Exit(1 if lost[0] else 0)


@app.command()
def call(
    agent: Annotated[str, typer.Option(help="The backend's WebSocket, such as ws://localhost:8765/ws.")],
    wav: Annotated[Path, typer.Option(help="What the caller says: mono PCM16, 8, 16, 24 or 48 kHz.")],
    dialect: Annotated[str, typer.Option(help="How the backend speaks.")] = "twilio",
    out: Annotated[Path | None, typer.Option(help="Where to write what the caller hears.")] = None,
    listen_s: Annotated[float, typer.Option(help="How long to listen after the last word.")] = 8.0,
) -> None:
    """Place a call to your own backend, say a WAV file, and hear the answer."""
    from app.local.speak import place_call

    run(lambda: place_call(client(), agent=agent, dialect=dialect, wav=wav, out=out, listen_s=listen_s))


@app.command()
def events(
    follow: Annotated[bool, typer.Option("--follow", help="Keep going, as events happen.")] = False,
    json_: JsonFlag = False,
) -> None:
    """The project's events."""

    def show(event: dict[str, Any]) -> None:
        if json_:
            typer.echo(json.dumps(event))
            return
        typer.echo(
            f"{event['timestamp']}  {event['call_id']}  {event['seq']:>4}  {event['type']:<22} "
            f"{event['region'] or '':<12} {json.dumps(event['data'])[:120]}"
        )

    async def work() -> None:
        async with client() as api:
            if follow:
                async for event in api.stream_events():
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


@app.command()
def regions(json_: JsonFlag = False) -> None:
    """Regions, their health, and how far away they are from here."""
    from voxplane import probe_regions

    async def work() -> None:
        async with client() as api:
            found = await api.regions()
            measured = {m.region: m for m in await probe_regions(found)}
        if json_:
            typer.echo(
                json.dumps(
                    [r | {"measured": m.to_json() if (m := measured.get(r["id"])) else None} for r in found]
                )
            )
            return
        for region in found:
            near = measured.get(region["id"])
            distance = f"{near.rtt_ms:7.1f} ms" if near else "         –"
            typer.echo(
                f"{region['id']:<14} {region['jurisdiction']:<4} {region['health']:<10} {region['admin_state']:<9} {distance}"
            )

    run(work)


@keys_app.command("create")
def keys_create(
    name: str,
    role: Annotated[str, typer.Option(help="owner, admin, developer or viewer")] = "developer",
    json_: JsonFlag = False,
) -> None:
    """Create a key; its secret is shown this once."""

    async def work() -> None:
        async with client() as api:
            made = await api.request("POST", "/v1/keys", {"name": name, "role": role})
        typer.echo(json.dumps(made) if json_ else f"{made['id']}  {made['role']}\n{made['secret']}")

    run(work)


@keys_app.command("list")
def keys_list(json_: JsonFlag = False) -> None:
    """The project's keys."""

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
def keys_revoke(key_id: str) -> None:
    """Revoke a key, everywhere within seconds."""

    async def work() -> None:
        async with client() as api:
            await api.request("DELETE", f"/v1/keys/{key_id}")
        typer.echo("revoked")

    run(work)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
