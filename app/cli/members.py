"""``voxplane members`` and ``voxplane agent-secret``: who belongs to a project, and the secret by which its backends know us."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.listing import Listing
from app.cli.run import named
from app.cli.show import JsonFlag, ask, say, table

members_app = typer.Typer(
    cls=Listing,
    help="People of the project: list, set and remove them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
agent_secret_app = typer.Typer(cls=Listing,
    help="The secret that signs the upgrade of backends' sockets.", no_args_is_help=True, rich_markup_mode=None
)  # fmt: skip


@members_app.command("list")
def members_list(json_: JsonFlag = False) -> None:
    """List the project's people.

    \b
    Example:
      voxplane members list
    """
    ask("GET", "/v1/members", json_=json_,
        shown=lambda page: table(page["data"], "id", "email", "role", "signed_in_at"))  # fmt: skip


@members_app.command("set")
def members_set(
    email: Annotated[str, typer.Argument(help="Of somebody who has an account.")],
    role: Annotated[str, typer.Argument(help="owner, admin, developer, operator, viewer or billing.")],
    json_: JsonFlag = False,
) -> None:
    """Give somebody a role in the project, or another one.

    \b
    Example:
      voxplane members set ada@example.com developer
    """
    ask("PUT", "/v1/members", {"email": email, "role": role}, json_=json_)


@members_app.command("remove")
def members_remove(
    person: Annotated[str, typer.Argument(help="person_…: `voxplane members list` shows them.")],
    json_: JsonFlag = False,
) -> None:
    """Take somebody out of the project.

    \b
    Example:
      voxplane members remove person_01j…
    """
    ask("DELETE", f"/v1/members/{named(person)}", json_=json_, shown=say("removed"))


@agent_secret_app.command("show")
def agent_secret_show(json_: JsonFlag = False) -> None:
    """Show the secret. The audit log keeps who has looked.

    \b
    Example:
      voxplane agent-secret show --json | jq -r .secret
    """
    ask("GET", "/v1/agent-secret", json_=json_)


@agent_secret_app.command("rotate")
def agent_secret_rotate(
    overlap_s: Annotated[
        int, typer.Option(min=0, max=604_800, help="So many seconds the present one signs too.")
    ] = 86_400,
    json_: JsonFlag = False,
) -> None:
    """Make a new one, for calls that are created from now on.

    \b
    Example:
      voxplane agent-secret rotate --overlap-s 3600
    """
    ask("POST", "/v1/agent-secret", {"overlap_s": overlap_s}, json_=json_)
