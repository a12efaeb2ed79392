"""``voxplane erasures`` and ``voxplane calls erase``: what was said in calls, destroyed for good.

Decides how these commands are written and what they print.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.calls import CallId, calls_app
from app.cli.listing import Listing
from app.cli.run import fail, named
from app.cli.show import JsonFlag, Limit, ask, ask_list, fields, table

erasures_app = typer.Typer(
    cls=Listing,
    help="Destroy what was said in calls, everywhere, and see how far that is.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@calls_app.command("erase")
def erase_call(call: CallId, json_: JsonFlag = False) -> None:
    """Destroy what was said in one call. There is no way back.

    \b
    Example:
      voxplane calls erase call_01j…
    """
    ask("POST", f"/v1/calls/{named(call)}/erase", json_=json_, shown=_shown)


@erasures_app.command("create")
def create(
    subject: Annotated[str | None, typer.Option(help="As the creates of the calls named it.")] = None,
    number: Annotated[str | None, typer.Option(help="That the calls came from or went to.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="NAME=VALUE", help="That the calls have, all of it; repeat it."),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Destroy what was said in all calls of a subject, a number, or with certain metadata. There is no way back.

    \b
    Example:
      voxplane erasures create --subject customer-4711
    """
    body: dict[str, Any] = {}
    if subject is not None:
        body["subject"] = subject
    if number is not None:
        body["number"] = number
    if metadata:
        pairs = [pair.partition("=") for pair in metadata]
        if not all(given for _, given, _ in pairs):
            raise fail("--metadata is NAME=VALUE", 2)
        body["metadata"] = {name: value for name, _, value in pairs}
    if len(body) != 1:
        raise fail("name exactly one of --subject, --number and --metadata", 2)
    ask("POST", "/v1/erasures", body, json_=json_, shown=_shown)


@erasures_app.command("list")
def list_(limit: Limit = 50, json_: JsonFlag = False) -> None:
    """List erasures, the newest first.

    \b
    Example:
      voxplane erasures list
    """
    ask_list(
        "/v1/erasures", "id", "kind", "state", "calls", "created_at", "done_at", json_=json_, limit=limit
    )


@erasures_app.command("show")
def show(
    erasure: Annotated[str, typer.Argument(help="As `voxplane erasures list` shows it.")],
    json_: JsonFlag = False,
) -> None:
    """Show how far an erasure is: each place that held something, and whether it has said that it holds nothing more.

    \b
    Example:
      voxplane erasures show era_01j… --json | jq '.places[] | select(.done_at == null)'
    """
    ask("GET", f"/v1/erasures/{named(erasure)}", json_=json_, shown=_shown)


def _shown(found: dict[str, Any]) -> str:
    places = found["places"]
    told = fields({name: value for name, value in found.items() if name != "places"})
    return told + "\n" + table(places, "kind", "place", "done_at", "how") if places else told
