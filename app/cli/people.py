"""``voxplane people``: who signs in to the console, and what they may do there.

Decides how these commands are written and what they print; who may be what is the API's to say.
"""

from __future__ import annotations

import getpass
import json
import sys
from typing import Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import fail, named, operator, run

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
Who = Annotated[str, typer.Argument(help="E-mail address or id.", metavar="PERSON")]
Project = Annotated[str, typer.Argument(help="Its id.", metavar="PROJECT")]
RoleOption = Annotated[
    str, typer.Option(help="owner, admin, developer, operator, viewer or billing.", metavar="ROLE")
]

LOCAL_OPERATOR = "operator@localhost"
"""The account that `voxplane up` makes."""

people_app = typer.Typer(
    cls=Listing,
    help="People who sign in to the console, with the operator's key.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@people_app.command("create")
def create(
    email: Annotated[str, typer.Argument(help="As the provider has verified it, where there is one.")],
    name: Annotated[str, typer.Option(help="As it is shown.")] = "",
    platform_operator: Annotated[
        bool, typer.Option("--operator", help="An operator of the platform.")
    ] = False,
    project: Annotated[str | None, typer.Option(help="A member of this project.", metavar="PROJECT")] = None,
    role: RoleOption = "developer",
    ask: Annotated[
        bool, typer.Option("--password", help="Ask for a password now, instead of printing a link.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Make an account, and print a link by which its person sets a password. There is no default password.

    Who signs in by a provider needs no link: the account is theirs once the provider vouches for the address.

    \b
    Example:
      voxplane people create ada@example.com --project prj_… --role developer
      voxplane people create root@example.com --operator --password
    """
    body = {"email": email, "name": name, "operator": platform_operator}

    async def work() -> None:
        async with operator() as api:
            person = await api.request("POST", "/admin/v1/people", body)
            if project is not None:
                path = f"/admin/v1/people/{person['id']}/memberships/{named(project)}"
                person = await api.request("PUT", path, {"role": role})
            link = await _link(api, person["id"], "password")
            if ask:
                await _set_password(str(api.base_urls[0]), link)
        if json_:
            typer.echo(json.dumps(person | ({} if ask else {"link": link})))
            return
        typer.echo(_line(person))
        if not ask:
            typer.echo(f"a password is set, once and until {link['expires_at']}, at\n{link['url']}")

    run(work)


@people_app.command("list")
def list_(json_: JsonFlag = False) -> None:
    """List the accounts.

    \b
    Example:
      voxplane people list --json | jq '.data[] | select(.operator) | .email'
    """

    async def work() -> None:
        async with operator() as api:
            found = await api.request("GET", "/admin/v1/people")
        if json_:
            typer.echo(json.dumps(found))
            return
        for person in found["data"]:
            typer.echo(_line(person))

    run(work)


@people_app.command("remove")
def remove(
    person: Who,
    erase: Annotated[
        bool, typer.Option("--erase", help="And take what the audit log has of them out of it.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Remove an account. It is signed out everywhere at once.

    The audit log keeps who did what under the id, with the addresses they came from, unless --erase is given.

    \b
    Example:
      voxplane people remove ada@example.com --erase
    """

    async def work() -> None:
        told = {}
        async with operator() as api:
            found = await _found(api, person)
            await api.request("DELETE", f"/admin/v1/people/{found['id']}")
            if erase:
                told = {"entries_erased": (await _erased(api, found["id"]))["entries"]}
        if json_:
            typer.echo(json.dumps(found | told))
            return
        typer.echo(f"removed {found['email']}, who was {found['id']}")
        if erase:
            typer.echo(f"erased from {told['entries_erased']} entries of the audit log")

    run(work)


@people_app.command("erase")
def erase(
    person: Annotated[
        str, typer.Argument(help="The id (person_…): `people remove` has printed it.", metavar="PERSON")
    ],
    json_: JsonFlag = False,
) -> None:
    """Take what the audit log has of a removed person out of it: addresses and summaries. There is no way back.

    Who did what to what, and when, stays, and `voxplane audit verify` finds the log as it was written.

    \b
    Example:
      voxplane people erase person_01j…
    """

    async def work() -> None:
        async with operator() as api:
            found = await _erased(api, person)
        typer.echo(json.dumps(found) if json_ else f"erased from {found['entries']} entries")

    run(work)


@people_app.command("grant")
def grant(
    person: Who,
    project: Annotated[str | None, typer.Argument(help="Its id.", metavar="PROJECT")] = None,
    role: RoleOption = "developer",
    platform_operator: Annotated[
        bool, typer.Option("--operator", help="Make them an operator of the platform.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Give a person a role in a project, in place of the one before; or make them an operator of the platform.

    \b
    Example:
      voxplane people grant ada@example.com prj_… --role admin
      voxplane people grant ada@example.com --operator
    """
    if project is None and not platform_operator:
        raise typer.BadParameter("name a project, or give --operator")

    async def work() -> None:
        async with operator() as api:
            found = await _found(api, person)
            path = f"/admin/v1/people/{found['id']}"
            if platform_operator:
                found = await api.request("PATCH", path, {"operator": True})
            if project is not None:
                where = f"{path}/memberships/{named(project)}"
                found = await api.request("PUT", where, {"role": role})
        typer.echo(json.dumps(found) if json_ else _line(found))

    run(work)


@people_app.command("withdraw")
def withdraw(
    person: Who,
    project: Annotated[str | None, typer.Argument(help="Its id.", metavar="PROJECT")] = None,
    platform_operator: Annotated[
        bool, typer.Option("--operator", help="No operator of the platform any more.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Take a role away again.

    \b
    Example:
      voxplane people withdraw ada@example.com prj_…
    """
    if project is None and not platform_operator:
        raise typer.BadParameter("name a project, or give --operator")

    async def work() -> None:
        async with operator() as api:
            found = await _found(api, person)
            path = f"/admin/v1/people/{found['id']}"
            if platform_operator:
                found = await api.request("PATCH", path, {"operator": False})
            if project is not None:
                found = await api.request("DELETE", f"{path}/memberships/{named(project)}")
        typer.echo(json.dumps(found) if json_ else _line(found))

    run(work)


@people_app.command("link")
def link(
    person: Who,
    sign_in: Annotated[
        bool, typer.Option("--sign-in", help="That signs in at once, within ten minutes.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Print a link for one use by which a person sets a new password, or is signed in.

    \b
    Example:
      voxplane people link ada@example.com
    """

    async def work() -> None:
        async with operator() as api:
            found = await _found(api, person)
            made = await _link(api, found["id"], "sign_in" if sign_in else "password")
        typer.echo(json.dumps(made) if json_ else made["url"])

    run(work)


def console(
    person: Annotated[
        str, typer.Argument(help="Whom it signs in: e-mail address or id.", metavar="PERSON")
    ] = LOCAL_OPERATOR,
    json_: JsonFlag = False,
) -> None:
    """Print a link that opens the console, signed in: once, and within ten minutes.

    \b
    Example, beside `voxplane up`:
      voxplane console
    """

    async def work() -> None:
        async with operator() as api:
            found = await _found(api, person)
            made = await _link(api, found["id"], "sign_in")
        typer.echo(json.dumps(made) if json_ else made["url"])

    run(work)


async def _found(api: Any, person: str) -> dict[str, Any]:
    found: dict[str, Any] = await api.request("GET", f"/admin/v1/people/{named(person)}")
    return found


async def _erased(api: Any, person_id: str) -> dict[str, Any]:
    """Until none is left."""
    entries = 0
    while True:
        found: dict[str, Any] = await api.request("POST", f"/admin/v1/people/{named(person_id)}/erase")
        entries += found["entries"]
        if found["cells_away"]:
            away = ", ".join(map(str, found["cells_away"]))
            raise fail(
                f"erased from {entries} entries; cell {away} is away: `people erase {person_id}` once it is back"
            )
        if found["done"]:
            return found | {"entries": entries}


async def _link(api: Any, person_id: str, purpose: str) -> dict[str, Any]:
    made: dict[str, Any] = await api.request(
        "POST", f"/admin/v1/people/{named(person_id)}/links", {"purpose": purpose}
    )
    if made["url"] == made["path"]:
        made["url"] = f"{str(api.base_urls[0]).rstrip('/')}{made['path']}"
    return made


async def _set_password(base: str, made: dict[str, Any]) -> None:
    """As the page does it."""
    import httpx

    given = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    secret = made["path"].partition("#")[2]
    origin = httpx.URL(made["url"])
    headers = {"origin": f"{origin.scheme}://{origin.netloc.decode()}"}
    async with httpx.AsyncClient(timeout=30) as client:
        url = f"{origin.scheme}://{origin.netloc.decode()}/console/sign-in/password"
        answer = await client.post(url, data={"secret": secret, "password": given}, headers=headers)
    if answer.status_code != 303:
        raise fail(
            "the account is made and the password was not taken: at least 12 characters that are not easy to guess;"
            f" set it at {made['url']}"
        )


def _line(person: dict[str, Any]) -> str:
    roles = [f"{m['project']} {m['role']}" for m in person["memberships"]]
    what = ", ".join((["operator"] if person["operator"] else []) + roles) or "in no project"
    return f"{person['id']}  {person['email']:<32} {what}"
