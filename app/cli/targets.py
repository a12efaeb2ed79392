"""The commands about the inner addresses that a test project's webhooks may reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated

import typer

from app.cli.listing import Listing
from app.cli.run import client, run
from app.cli.show import JsonFlag

targets_app = typer.Typer(
    cls=Listing,
    help="Inner addresses that a test project's webhooks may reach.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Named = Annotated[
    list[str], typer.Argument(help="localhost:3000, devbox.lan, 192.168.1.0/24", metavar="TARGET…")
]


@targets_app.command("list")
def list_(json_: JsonFlag = False) -> None:
    """List them.

    \b
    Example:
      voxplane targets list
    """
    _change(None, json_)


@targets_app.command("add")
def add(targets: Named, json_: JsonFlag = False) -> None:
    """Let webhooks of this project reach a host, an address or a network.

    For test projects, where the deployment has VOXPLANE_ALLOW_PROJECT_TARGETS=1. Needs an owner's or an admin's key.

    \b
    Example:
      voxplane targets add localhost:3000 192.168.1.0/24
    """
    _change(lambda listed: [*listed, *(t for t in targets if t.lower() not in listed)], json_)


@targets_app.command("remove")
def remove(targets: Named, json_: JsonFlag = False) -> None:
    """Take some away.

    \b
    Example:
      voxplane targets remove localhost:3000
    """
    gone = {t.lower() for t in targets}
    _change(lambda listed: [t for t in listed if t not in gone], json_)


def _change(change: Callable[[list[str]], list[str]] | None, json_: bool) -> None:
    async def work() -> None:
        async with client() as api:
            found = (await api.request("GET", "/v1/targets"))["targets"]
            if change is not None:
                found = (await api.request("PUT", "/v1/targets", {"targets": change(found)}))["targets"]
        typer.echo(json.dumps(found) if json_ else "\n".join(found) or "nothing")

    run(work)
