"""The commands about the inner addresses that a test project's webhooks may reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from app.cli_run import client, run

targets_app = typer.Typer(
    help="Inner addresses that a test project's webhooks may reach.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Named = Annotated[
    list[str], typer.Argument(help="localhost:3000, devbox.lan, 192.168.1.0/24", metavar="TARGET…")
]


@targets_app.command("list")
def list_() -> None:
    """List them.

    \b
    Example:
      voxplane targets list
    """
    _change(None)


@targets_app.command("add")
def add(targets: Named) -> None:
    """Let webhooks of this project reach a host, an address or a network.

    For test projects, where the deployment has VOXPLANE_ALLOW_PROJECT_TARGETS=1. Needs an owner's or an admin's key.

    \b
    Example:
      voxplane targets add localhost:3000 192.168.1.0/24
    """
    _change(lambda listed: [*listed, *(t for t in targets if t.lower() not in listed)])


@targets_app.command("remove")
def remove(targets: Named) -> None:
    """Take some away.

    \b
    Example:
      voxplane targets remove localhost:3000
    """
    gone = {t.lower() for t in targets}
    _change(lambda listed: [t for t in listed if t not in gone])


def _change(change: Callable[[list[str]], list[str]] | None) -> None:
    async def work() -> None:
        async with client() as api:
            found = (await api.request("GET", "/v1/targets"))["targets"]
            if change is not None:
                found = (await api.request("PUT", "/v1/targets", {"targets": change(found)}))["targets"]
        for target in found:
            typer.echo(target)

    run(work)
