"""``voxplane usage``: what calls have used and what that costs; for operators, the prices.

Decides how a table is printed; what is summed and how it is priced is the API's to say.
"""

from __future__ import annotations

import csv as writing
import json
import sys
from typing import Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import client, fail, named, operator, run

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
GROUPS = ("day", "region", "transport", "side", "region_pair")

usage_app = typer.Typer(cls=Listing, invoke_without_command=True, rich_markup_mode=None)


@usage_app.callback()
def show(
    context: typer.Context,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="The first day, 2026-01-31.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="DAY", help="The day after the last one.")] = None,
    group_by: Annotated[str, typer.Option(help=", ".join(GROUPS))] = "day",
    json_: JsonFlag = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values, with a line of names.")] = False,
) -> None:
    """What calls have used, and what that costs: sums of those that ended on these days, in UTC; without them the last thirty.

    \b
    Example:
      voxplane usage --from 2026-01-01 --to 2026-02-01 --group-by region --csv > january.csv
    """
    if context.invoked_subcommand is not None:
        return
    if group_by not in GROUPS:
        raise fail(f"--group-by is one of {', '.join(GROUPS)}, not {group_by!r}", 2)
    if json_ and csv:
        raise fail("--json or --csv, not both", 2)

    async def work() -> None:
        params = {"from": from_, "to": to, "group_by": group_by}
        async with client() as api:
            found = await api.request("GET", "/v1/usage", params=params)
        if json_:
            typer.echo(json.dumps(found))
        elif csv:
            _write(found)
        else:
            _table(found)

    run(work)


@usage_app.command("call")
def call(
    call_id: Annotated[str, typer.Argument(help="call_…")],
    json_: JsonFlag = False,
) -> None:
    """What each owner of a call has carried.

    \b
    Example:
      voxplane usage call call_01j…
    """

    async def work() -> None:
        async with client() as api:
            found = await api.request("GET", f"/v1/calls/{named(call_id)}/usage")
        if json_:
            typer.echo(json.dumps(found))
            return
        for owner in found["owners"]:
            mark = "" if owner["complete"] else "  died without a last word"
            spent = f"caller {_minutes(owner['caller_ms'])}, agent {_minutes(owner['agent_ms'])}"
            typer.echo(
                f"epoch {owner['epoch']:<3} {owner['region']:<12} {owner['transport']:<9} {spent}{mark}"
            )
        typer.echo(f"{'so far' if not found['final'] else 'total'}: {_cost(found, found['total'])}")

    run(work)


@usage_app.command("price")
def price(
    project: Annotated[str, typer.Argument(help="prj_…")],
    prices: Annotated[
        list[str] | None, typer.Argument(help="agent_minute=4000", metavar="NAME=MILLIONTHS…")
    ] = None,
    valid_from: Annotated[str, typer.Option("--from", metavar="DAY", help="From this day on, in UTC.")] = "",
    currency: Annotated[str, typer.Option(metavar="ISO", help="Such as USD.")] = "USD",
    json_: JsonFlag = False,
) -> None:
    """Show a project's prices, or set those from a day on, with the operator's key.

    \b
    The names, in millionths of the currency:
      websocket_minute, webrtc_minute, agent_minute, egress_gb, egress_far_gb, call, turn

    \b
    Example:
      voxplane usage price prj_01j… --from 2026-01-01 websocket_minute=4000 egress_gb=90000
    """
    wanted = dict(_read(text) for text in prices or [])
    if wanted and not valid_from:
        raise fail("say from which day on these prices hold: --from 2026-01-31", 2)

    async def work() -> None:
        path = f"/admin/v1/projects/{named(project)}/prices"
        async with operator() as api:
            found = await api.request("GET", path)
            if wanted:
                body = {"valid_from": valid_from, "currency": currency, "prices": wanted}
                found = await api.request("PUT", path, body, if_match=str(found["version"]))
        if json_:
            typer.echo(json.dumps(found))
            return
        for version in found["data"]:
            said = "  ".join(f"{name}={n}" for name, n in version["prices"].items() if n)
            typer.echo(f"from {version['valid_from']}  {version['currency']}  {said or 'nothing'}")
        if not found["data"]:
            typer.echo("no prices")

    run(work)


def _read(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals or not value.isascii() or not value.isdigit():
        raise fail(f"{text!r} is not a price: write NAME=MILLIONTHS, such as agent_minute=4000", 2)
    return name, int(value)


def _names(found: dict[str, Any]) -> list[str]:
    return ["from_region", "to_region"] if found["group_by"] == "region_pair" else [found["group_by"]]


def _write(found: dict[str, Any]) -> None:
    columns = [*_names(found), *found["total"]]
    out = writing.writer(sys.stdout)
    out.writerow(columns)
    for row in found["data"]:
        out.writerow("" if (value := row.get(column, 0)) is None else value for column in columns)


def _table(found: dict[str, Any]) -> None:
    for row in [*found["data"], found["total"]]:
        whose = (
            " → ".join(str(row.get(name) or "?") for name in _names(found))
            if row is not found["total"]
            else "total"
        )
        figures = (
            f"{_counted(row.get('calls', 0), 'call')}"
            f"  caller {_minutes(row.get('caller_ms', 0))}  agent {_minutes(row.get('agent_ms', 0))}"
            f"  out {row.get('caller_out_bytes', 0) + row.get('agent_out_bytes', 0)} bytes  {_counted(row.get('turns', 0), 'turn')}"
            f"  {_counted(row.get('failovers', 0), 'failover')}"
        )
        typer.echo(f"{whose:<24} {figures}  {_cost(found, row)}")
    if found["pending"]:
        ended = _counted(found["pending"], "ended call")
        typer.echo(f"voxplane: not in it yet: {ended}", err=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _minutes(ms: int) -> str:
    return f"{ms // 60_000}:{ms % 60_000 // 1000:02d}"


def _cost(found: dict[str, Any], row: dict[str, Any]) -> str:
    micros = row.get("cost_micros")
    if not found["billed"]:
        return "not billed"
    return (
        "no price"
        if micros is None
        else f"{micros // 1_000_000}.{micros % 1_000_000:06d} {found['currency']}"
    )
