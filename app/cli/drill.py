"""``voxplane drill`` and ``voxplane drills``: rehearse a loss, watch it, and print what became of each call.

Decides how these commands are written and what they print; what may be done is the API's to say. The exit code is 0 for a
drill that has passed, 1 for any other end.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.fleet import JsonFlag
from app.cli.listing import Listing
from app.cli.run import fail, operator, run

if TYPE_CHECKING:
    from app.local.drill_calls import Synthetic
    from voxplane import AsyncClient

LOOK_EVERY_S = 0.3
SYNTHETIC_MAX = 50

drills_app = typer.Typer(cls=Listing, invoke_without_command=True, rich_markup_mode=None)


def _share(given: float) -> float:
    if not 0 < given <= 1:
        raise typer.BadParameter(f"{given} is not above 0 and at most 1.")
    return given


Share = Annotated[
    float, typer.Option(callback=_share, help="Of the calls that are there, above 0, at most 1.")
]


def drill(
    target: Annotated[str, typer.Argument(help="A region's id, or an edge's (edge_…).", metavar="TARGET")],
    synthetic: Annotated[
        int, typer.Option(min=0, max=SYNTHETIC_MAX, help="Place so many calls here, and drill those alone.")
    ] = 0,
    label: Annotated[
        str | None, typer.Option(help="Drill calls that run with this in their metadata.voxplane_drill.")
    ] = None,
    real: Annotated[bool, typer.Option("--real", help="Drill calls of customers.")] = False,
    share: Share = 0.1,
    max_calls: Annotated[int, typer.Option(min=1, max=1_000, help="So many at most.")] = 100,
    how: Annotated[
        str, typer.Option(help="closed: the caller's connection breaks; silent: nothing comes any more.")
    ] = "closed",
    max_rto_ms: Annotated[int, typer.Option(help="A call that is back later breaks the drill off.")] = 2_000,
    max_lost_events: Annotated[
        int, typer.Option(help="So many acknowledged events may be missing in all.")
    ] = 0,
    max_failed_calls: Annotated[int, typer.Option(help="So many calls may be lost in all.")] = 0,
    time_limit_s: Annotated[int, typer.Option(min=5, max=3_600, help="No wave begins later.")] = 300,
    backend_url: Annotated[
        str | None, typer.Option(help="Where edges reach the tone backend of synthetic calls.")
    ] = None,
    listen: Annotated[
        str, typer.Option(help="Where it listens, host:port; 0: any port that is free.")
    ] = "127.0.0.1:0",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Rehearse the loss of an edge or a region, for operators.

    Calls are cut in waves: one, then a tenth, then the rest; each as if its edge had died. Stops by itself when a bound is broken, or
    something else in the fleet is not well. With --synthetic the calls are this command's own (all of them are drilled); with --real
    they are customers' calls. Ctrl-C stops the drill.

    \b
    Example:
      voxplane drill us-east --synthetic 10
      voxplane drill edge_01j… --real --share 0.05 --max-calls 20 --dry-run
    """
    bounds = {
        "max_rto_ms": max_rto_ms,
        "max_lost_events": max_lost_events,
        "max_failed_calls": max_failed_calls,
    }
    body = _calls(real, synthetic, label) | {
        "share": 1.0 if synthetic else share,
        "max_calls": max_calls,
        "how": how,
    }
    body |= {"bounds": bounds, "time_limit_s": time_limit_s, "dry_run": dry_run}
    place = Synthetics(synthetic, listen, backend_url)
    passed: list[bool] = []

    async def work() -> None:
        passed.append(await _rehearse(target, place, body, json_=json_))

    run(work)
    raise typer.Exit(0 if passed and passed[0] else 1)


def _calls(real: bool, synthetic: int, label: str | None) -> dict[str, Any]:
    """Which calls are drilled, as the API's body has it; one of the three is given."""
    if bool(real) + bool(synthetic) + bool(label) != 1:
        raise fail(
            "say --synthetic N for calls of this command's own, --label for calls of yours that run,"
            " or --real for those of customers",
            2,
        )
    return {"calls": "real" if real else "synthetic"} | ({"label": label} if label else {})


@dataclass(frozen=True, slots=True)
class Synthetics:
    """How many calls are to be placed, where their backend listens, and where edges reach it."""

    count: int
    listen: str
    backend_url: str | None


async def _rehearse(target: str, place: Synthetics, body: dict[str, Any], *, json_: bool) -> bool:
    """Whether the drill has passed; a dry run always has."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(operator())
        calls: Synthetic | None = None
        if place.count:
            calls = await _place(stack, api, target, place)
            body["label"] = calls.label
        kind = "edge.loss" if target.startswith("edge_") else "region.loss"
        begun = await api.start_drill(kind, target, **body)
        if body["dry_run"]:
            typer.echo(json.dumps(begun) if json_ else _preview(begun))
            return True
        shown = await _follow(api, begun, quiet=json_)
        if calls is not None:
            for one in shown["per_call"]:
                one["caller_gap_ms"] = calls.gap_ms(one["call_id"])
        typer.echo(json.dumps(shown) if json_ else "\n".join(_report(shown)))
        return bool(shown["verdict"] == "passed")


async def _place(stack: AsyncExitStack, api: AsyncClient, target: str, place: Synthetics) -> Synthetic:
    from app.local.drill_calls import synthetic_calls, tone_backend

    host, _, port = place.listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise fail(f"--listen is host:port, not {place.listen!r}", 2)
    region, edge = target, None
    if target.startswith("edge_"):
        edges = (await api.request("GET", "/admin/v1/edges"))["data"]
        found = next((e for e in edges if e["id"] == target), None)
        if found is None:
            raise fail(f"there is no edge {target}: `voxplane edges` lists them")
        region, edge = found["region"], target
    serving = await stack.enter_async_context(tone_backend(host, int(port)))
    url = place.backend_url or f"ws://{host}:{serving}/"
    typer.echo(f"voxplane: placing {place.count} calls in {region}, with their backend at {url}", err=True)
    placing = synthetic_calls(
        api, api.base_urls, label=f"drill-{secrets.token_hex(4)}", count=place.count, region=region, edge=edge, backend=url
    )  # fmt: skip
    return await stack.enter_async_context(placing)


async def _follow(api: AsyncClient, shown: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Until it has ended; where this is broken off, the drill is stopped."""
    said = ""
    try:
        while True:
            shown = await api.drill(shown["id"])
            line = _line(shown)
            if not quiet and line != said:
                typer.echo(line)
                said = line
            if shown["state"] == "ended":
                return shown
            await asyncio.sleep(LOOK_EVERY_S)
    except asyncio.CancelledError:
        await asyncio.shield(api.stop_drill(shown["id"]))
        raise


def _line(shown: dict[str, Any]) -> str:
    """One line of progress."""
    done = shown["summary"]
    counts = ", ".join(f"{done[k]} {k}" for k in ("recovered", "ended", "lost", "untouched") if done[k])
    return f"wave {shown['wave']}: {done['cut']} of {shown['total']} cut" + (f", {counts}" if counts else "")


def _report(shown: dict[str, Any]) -> list[str]:
    lines = []
    for call in shown["per_call"]:
        rto = f"{call['rto_ms']:.0f} ms" if call["rto_ms"] is not None else "–"
        heard = f", caller's gap {gap:.0f} ms" if (gap := call.get("caller_gap_ms")) is not None else ""
        lines.append(
            f"{call['call_id']}  wave {call['wave']}  {call['from_region']} → {call['to_region'] or '–'}  "
            f"{call['outcome'] or 'open'}  back after {rto}{heard}, {call['lost_events']} events lost"
        )
    done = shown["summary"]
    if done["rto_max_ms"] is not None:
        lines.append(
            f"RTO p50 {done['rto_p50_ms']:.0f} ms, p99 {done['rto_p99_ms']:.0f} ms, max {done['rto_max_ms']:.0f} ms; "
            f"RPO {done['lost_events']} events"
        )
    why = f": {shown['reason']}" if shown["reason"] else ""
    return [*lines, f"{shown['id']} {shown['verdict']}{why}"]


def _preview(shown: dict[str, Any]) -> str:
    places = ", ".join(f"{d['calls']} to {d['region']} ({d['edge']})" for d in shown["destinations"])
    waves = " + ".join(str(n) for n in shown["waves"])
    return (
        f"{shown['total']} of {shown['on_target']} calls would be cut ({waves}), {places}; "
        f"{shown['unprotected']} have no standby with a place left and are spared"
    )


@drills_app.callback()
def drills(context: typer.Context, json_: JsonFlag = False) -> None:
    """List the newest drills; show or stop one.

    \b
    Example:
      voxplane drills
      voxplane drills show drill_01j… --json | jq .summary
    """
    if context.invoked_subcommand is not None:
        return

    async def work() -> None:
        async with operator() as api:
            found = await api.drills()
        if json_:
            typer.echo(json.dumps(found))
            return
        if not found:
            typer.echo("no drills yet: `voxplane drill` rehearses a loss")
        for one in found:
            verdict = one["verdict"] or one["state"]
            where = one["edge"] or one["region"]
            typer.echo(
                f"{one['id']}  {one['started_at']}  {where:<31} {one['total']:>5} calls  {verdict} {one['reason']}".rstrip()
            )

    run(work)


DrillId = Annotated[str, typer.Argument(help="drill_…", metavar="ID")]


@drills_app.command("show")
def show(drill_id: DrillId, json_: JsonFlag = False) -> None:
    """Show a drill, and what became of each call.

    \b
    Example:
      voxplane drills show drill_01j…
    """

    async def work() -> None:
        async with operator() as api:
            found = await api.drill(drill_id)
        typer.echo(json.dumps(found) if json_ else "\n".join([_line(found), *_report(found)]))

    run(work)


@drills_app.command("stop")
def stop(drill_id: DrillId, json_: JsonFlag = False) -> None:
    """Cut no more calls; those that were are followed.

    \b
    Example:
      voxplane drills stop drill_01j…
    """

    async def work() -> None:
        async with operator() as api:
            found = await api.stop_drill(drill_id)
        typer.echo(json.dumps(found) if json_ else f"{found['id']} {found['verdict'] or found['state']}")

    run(work)
