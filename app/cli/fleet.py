"""``voxplane regions``, ``voxplane edges`` and ``voxplane move``: what operators look at, and what they move calls with.

Decides how these commands are written and what they print; what may be done is the API's to say.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import client, fail, named, operator, run
from app.cli.times import ago

LOOK_EVERY_S = 0.5
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
Target = Annotated[str, typer.Argument(help="Its id.", metavar="ID")]
Wait = Annotated[bool, typer.Option("--wait", help="Until the last call has left, with the progress.")]
Within = Annotated[
    int, typer.Option(min=1, max=86_400, help="Seconds in which the end of a turn is waited for.")
]


regions_app = typer.Typer(cls=Listing, invoke_without_command=True, rich_markup_mode=None)
edges_app = typer.Typer(cls=Listing, invoke_without_command=True, rich_markup_mode=None)


@regions_app.callback()
def regions(context: typer.Context, json_: JsonFlag = False) -> None:
    """Show the regions, their health and distance; cordon, drain and evacuate them.

    \b
    Example:
      voxplane regions --json | jq '.[] | {id, health}'
      voxplane regions drain us-east --wait
      voxplane regions health eu-west   (with the operator's key: why it is held for what it is)
    """
    if context.invoked_subcommand is not None:
        return
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


@regions_app.command("health")
def regions_health(
    region: Annotated[str, typer.Argument(help="The region's id, such as eu-west.")], json_: JsonFlag = False
) -> None:
    """Show what is held of a region and why, for operators.

    Each edge with its verdict, what each signal says, by which figures, and what would change it. VOXPLANE_OPERATOR_KEY is the
    operator's key (vx_op_…); beside a local `voxplane up` it need not be set.

    \b
    Example:
      voxplane regions health eu-west --json | jq .edges[].signals
    """
    from app.cli.health import lines

    async def work() -> None:
        async with operator() as api:
            found = await api.region_health(region)
        typer.echo(json.dumps(found) if json_ else "\n".join(lines(found)))

    run(work)


@regions_app.command("matrix")
def regions_matrix(json_: JsonFlag = False) -> None:
    """Show the round trips between the regions, in milliseconds, as their edges measure them. A row is where it was measured.

    \b
    Example:
      voxplane regions matrix
      voxplane regions matrix --json | jq '.ways[] | select(.rtt_ms > 150)'
    """

    async def work() -> None:
        async with client() as api:
            found = await api.region_matrix()
        typer.echo(json.dumps(found) if json_ else "\n".join(matrix_lines(found)))

    run(work)


def matrix_lines(found: dict[str, Any]) -> list[str]:
    """A table; – where nothing was measured, or nothing came back."""
    ways = {(w["from"], w["to"]): w["rtt_ms"] for w in found["ways"] if w["loss"] < 1}
    regions = found["regions"]
    said = [" " * 14 + "".join(f"{r:>14}" for r in regions)]
    for one in regions:
        cells = [f"{ways[one, to]:.1f}" if (one, to) in ways else "–" for to in regions]
        said.append(f"{one:<14}" + "".join(f"{cell:>14}" for cell in cells))
    return said


@edges_app.callback()
def edges(context: typer.Context, json_: JsonFlag = False) -> None:
    """Show the edges and their calls; cordon, drain and evacuate them.

    \b
    Example:
      voxplane edges --json | jq '.[] | {id, region, calls}'
      voxplane edges drain edge_01j… --within-s 60
    """
    if context.invoked_subcommand is not None:
        return

    async def work() -> None:
        async with operator() as api:
            found = (await api.request("GET", "/admin/v1/edges"))["data"]
        if json_:
            typer.echo(json.dumps(found))
            return
        for edge in found:
            calls = f"{edge['calls']:>5} of {edge['capacity_calls']:<5} {edge['software'] or '–'}"
            typer.echo(
                f"{edge['id']}  {edge['region']:<14} {edge['name']:<12} {edge['health']:<10} {edge['admin_state']:<9} {calls}"
            )

    run(work)


def _add_commands(app: typer.Typer, what: str, example: str) -> None:
    """The five commands of a group. `what`: in the path."""

    def cordon(target: Target, json_: JsonFlag = False) -> None:
        _tell(f"{what}/{named(target)}", "cordon", json_)

    def uncordon(target: Target, json_: JsonFlag = False) -> None:
        _tell(f"{what}/{named(target)}", "uncordon", json_)

    def drain(target: Target, within_s: Within = 300, wait: Wait = False, json_: JsonFlag = False) -> None:
        _drain(f"{what}/{named(target)}", "drain", {"within_s": within_s}, wait=wait, json_=json_)

    def evacuate(target: Target, wait: Wait = False, json_: JsonFlag = False) -> None:
        _drain(f"{what}/{named(target)}", "evacuate", None, wait=wait, json_=json_)

    def progress(target: Target, wait: Wait = False, json_: JsonFlag = False) -> None:
        _drain(f"{what}/{named(target)}", None, None, wait=wait, json_=json_)

    for command, help_ in (
        (cordon, "No new calls; those that run stay."),
        (uncordon, "Take new calls again. A drain that runs is canceled."),
        (drain, "No new calls, and those that run are moved elsewhere at the end of a turn."),
        (evacuate, "A drain that waits for nothing."),
        (progress, "How far the newest drain is."),
    ):
        shown = f"{help_}\n\n\b\nExample:\n  voxplane {what} {command.__name__} {example}"
        app.command(command.__name__, help=shown)(command)


def _tell(path: str, verb: str, json_: bool) -> None:
    async def work() -> None:
        async with operator() as api:
            shown = await api.request("POST", f"/admin/v1/{path}/{verb}")
        typer.echo(json.dumps(shown) if json_ else f"{path.partition('/')[2]} is {shown['admin_state']}")

    run(work)


def _drain(path: str, verb: str | None, body: dict[str, int] | None, *, wait: bool, json_: bool) -> None:
    async def work() -> None:
        async with operator() as api:
            if verb is not None:
                await api.request("POST", f"/admin/v1/{path}/{verb}", body)
            said = ""
            while True:
                shown = await api.request("GET", f"/admin/v1/{path}/drain")
                line = drain_line(shown)
                if not json_ and line != said:
                    typer.echo(line)
                    said = line
                if not wait or shown["state"] != "running":
                    break
                await asyncio.sleep(LOOK_EVERY_S)
        if json_:
            typer.echo(json.dumps(shown))

    run(work)


def _add_revoke(app: typer.Typer, kind: str, example: str) -> None:
    one = "an edge" if kind == "edges" else "all edges of a region"

    @app.command("revoke", help=REVOKE_HELP.format(one=one, kind=kind, example=example))
    def revoke(
        target: Target,
        reason: Annotated[str, typer.Option(help="For the fleet's log.")] = "",
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        json_: JsonFlag = False,
    ) -> None:
        if not yes and not typer.confirm(f"Cut off {one} ({target}) for good?"):
            raise fail("nothing was done")

        async def work() -> None:
            async with operator() as api:
                done = await api.request(
                    "POST", f"/admin/v1/{kind}/{named(target)}/revoke", {"reason": reason}
                )
            typer.echo(json.dumps(done) if json_ else "\n".join(revoke_lines(done)))

        run(work)


@edges_app.command("rotate-key")
def rotate_key(
    target: Target,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="So long the present key goes on working: 0 to 7d.")
    ] = "1h",
    wait: Annotated[bool, typer.Option("--wait", help="Until the edge has its new key.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Have an edge take another key. It makes it itself; neither calls nor its uplink are touched.

    An edge that is away takes it when it is back. Where somebody else may have its key: `voxplane edges revoke`.

    \b
    Example:
      voxplane edges rotate-key edge_01j… --wait
    """
    body = {"overlap_s": 0 if overlap in ("0", "0s") else int(ago(overlap, "--overlap").total_seconds())}

    async def work() -> None:
        async with operator() as api:
            shown = await api.request("POST", f"/admin/v1/edges/{named(target)}/rotate-key", body)
            while wait and shown["key"]["asked_at"] is not None:
                await asyncio.sleep(LOOK_EVERY_S)
                shown = await api.request("GET", f"/admin/v1/edges/{named(target)}")
        typer.echo(json.dumps(shown) if json_ else key_line(shown))

    run(work)


def key_line(edge: dict[str, Any]) -> str:
    """What there is to say of an edge's key."""
    key = edge["key"]
    line = f"{edge['id']}  {edge['name']} of {edge['region']}: its key is from {key['since']}"
    if key["asked_at"] is not None:
        line += f"; another one is asked for since {key['asked_at']}"
    if key["before_until"] is not None:
        line += f"; one before it holds until {key['before_until']}"
    if key["misuses"]:
        line += f"; a key that holds no more was shown {key['misuses']} times, last at {key['misused_at']}"
    return line


REVOKE_HELP = """Cut off {one} for good: the uplink, its tokens and its keys; the calls are evacuated.

\b
Example:
  voxplane {kind} revoke {example} --reason "disk was stolen"
"""


def revoke_lines(done: dict[str, Any]) -> list[str]:
    lines = [f"{edge['id']}  revoked  {edge['name']} of {done['region']}" for edge in done["edges"]]
    lines = lines or [f"none of {done['region']} was left to revoke"]
    if done["evacuation"] is not None:
        lines.append(drain_line(done["evacuation"]))
    elif done["not_evacuated"]:
        lines.append(f"its calls are not evacuated: {done['not_evacuated']}")
    lines.append(f"for a new edge: POST /admin/v1/regions/{done['region']}/enrol")
    return lines


def drain_line(shown: dict[str, Any]) -> str:
    """One line of progress."""
    stuck: dict[str, int] = {}
    for call in shown["stuck"]:
        stuck[call["why"]] = stuck.get(call["why"], 0) + 1
    counts = f"{shown['moved']} of {shown['total']} moved, {shown['ended']} ended, {shown['left']} left"
    cannot = f"; cannot go: {', '.join(f'{n} {why}' for why, n in sorted(stuck.items()))}" if stuck else ""
    return f"{shown['kind']} {shown['state']}: {counts}{cannot}; by force from {shown['deadline']}"


_add_commands(regions_app, "regions", "us-east")
_add_commands(edges_app, "edges", "edge_01j…")
_add_revoke(regions_app, "regions", "us-east")
_add_revoke(edges_app, "edges", "edge_01j…")


def move(
    call_id: Annotated[str, typer.Argument(help="call_…")],
    region: Annotated[
        str | None, typer.Option(help="Where to; the best other edge where it is left out.")
    ] = None,
    within_s: Annotated[
        int, typer.Option(min=0, max=3_600, help="Seconds in which the end of a turn is waited for.")
    ] = 30,
    json_: JsonFlag = False,
) -> None:
    """Move a call to another edge, at the end of a turn.

    \b
    Example:
      voxplane move call_01j… --region eu-west
    """

    async def work() -> None:
        body = {"within_s": within_s} | ({"region": region} if region else {})
        async with client() as api:
            asked = await api.request("POST", f"/v1/calls/{named(call_id)}/move", body)
        typer.echo(
            json.dumps(asked)
            if json_
            else f"to {asked['region']} at epoch {asked['epoch']}, by force from {asked['deadline']}"
        )

    run(work)
