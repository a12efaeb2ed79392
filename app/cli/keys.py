"""``voxplane keys``: what acts for a project, from its making to its end.

Decides how these commands are written and what they print; what a key may hand out is the API's to say.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, get_args

import typer

from app.cli.listing import Listing
from app.cli.run import client, fail, named, run
from app.cli.times import AGO, ago
from app.projects.roles import RoleName

ROLES = ", ".join(get_args(RoleName))

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
KeyId = Annotated[str, typer.Argument(help="key_…; `voxplane keys list` shows them.")]

keys_app = typer.Typer(
    cls=Listing,
    help="Create, list, narrow, rotate and revoke the project's keys.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[str, typer.Option(help=f"One of {ROLES}.")] = "developer",
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", metavar="SCOPE", help="Only this of what the role may do; repeat it for several."
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="In 30d, 12h, … or at a time like 2027-01-31T00:00:00Z."),
    ] = None,
    allow_from: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK", help="Only from this address or network; repeat it for several."),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Create a key; its secret is shown this once.

    \b
    Example:
      voxplane keys create "night shift" --role operator --expires 90d --allow-from 203.0.113.0/24
    """
    body = {
        "name": name,
        "role": role,
        "scopes": scopes or [],
        "expires_at": _when(expires),
        "allow_from": allow_from or [],
    }

    async def work() -> None:
        async with client() as api:
            made = await api.request("POST", "/v1/keys", body)
        typer.echo(json.dumps(made) if json_ else f"{made['id']}  {made['role']}\n{made['secret']}")

    run(work)


@keys_app.command("list")
def keys_list(json_: JsonFlag = False) -> None:
    """List the project's keys, without their secrets.

    \b
    Example:
      voxplane keys list
    """

    async def work() -> None:
        async with client() as api:
            found = (await api.request("GET", "/v1/keys"))["data"]
        if json_:
            typer.echo(json.dumps(found))
            return
        for key in found:
            typer.echo("\n".join(_lines(key)))

    run(work)


@keys_app.command("rotate")
def keys_rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="So long older secrets go on working: 0 to 7d.")
    ] = "24h",
    json_: JsonFlag = False,
) -> None:
    """Give a key another secret, which is shown this once; the one before works on for a while.

    \b
    Example:
      voxplane keys rotate key_01j… --overlap 2h
    """
    body = {"overlap_s": 0 if overlap in ("0", "0s") else int(ago(overlap, "--overlap").total_seconds())}

    async def work() -> None:
        async with client() as api:
            made = await api.request("POST", f"/v1/keys/{named(key_id)}/rotate", body)
        typer.echo(json.dumps(made) if json_ else "\n".join([*_lines(made), made["secret"]]))

    run(work)


@keys_app.command("change")
def keys_change(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    role: Annotated[str | None, typer.Option(help=f"One of {ROLES}, that may do no more.")] = None,
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="Only this of what it may do; repeat it for several."),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Rename a key, or let it do less, everywhere within seconds. Nothing lets a key do more: create another.

    \b
    Example:
      voxplane keys change key_01j… --scope calls:read --scope events:read
    """
    given = {"name": name, "role": role, "scopes": scopes or None}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise fail("say what changes: --name, --role or --scope", 2)

    async def work() -> None:
        async with client() as api:
            changed = await api.request("PATCH", f"/v1/keys/{named(key_id)}", body)
        typer.echo(json.dumps(changed) if json_ else "\n".join(_lines(changed)))

    run(work)


@keys_app.command("revoke")
def keys_revoke(key_id: KeyId, json_: JsonFlag = False) -> None:
    """Revoke a key with all its secrets, everywhere within seconds; streams that it has open end.

    \b
    Example:
      voxplane keys revoke key_01j…   (`voxplane keys list` shows the ids)
    """

    async def work() -> None:
        async with client() as api:
            await api.request("DELETE", f"/v1/keys/{named(key_id)}")
        typer.echo(json.dumps({"id": key_id, "revoked": True}) if json_ else "revoked")

    run(work)


def _lines(key: dict[str, Any]) -> list[str]:
    now = datetime.now(UTC)
    expired = key["expires_at"] is not None and datetime.fromisoformat(key["expires_at"]) <= now
    state = "revoked" if key["revoked_at"] else "expired" if expired else "active"
    used = key["last_used_at"] or "never used"
    lines = [f"{key['id']}  {key['role']:<10} …{key['hint']}  {state:<8} {used:<24}  {key['name']}"]
    for what, said in (
        ("only", " ".join(key["scopes"])),
        ("from", " ".join(key["allow_from"])),
        ("until", key["expires_at"]),
        *(("also", f"…{before['hint']} until {before['expires_at']}") for before in key["before"]),
    ):
        if said:
            lines.append(f"    {what:<6}{said}")
    return lines


def _when(text: str | None) -> str | None:
    """RFC 3339. A time is passed on as it is written: the API says whether it will do."""
    if text is None:
        return None
    if AGO.fullmatch(text):
        return (datetime.now(UTC) + ago(text, "--expires")).isoformat()
    try:
        datetime.fromisoformat(text)
    except ValueError:
        said = f"--expires is 12h or 30d from now, or a time like 2027-01-31T00:00:00Z, not {text!r}"
        raise fail(said, 2) from None
    return text
