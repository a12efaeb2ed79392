"""``voxplane keys rotate-master`` and ``voxplane fleet-keys``: the keys that operators look after.

Decides how these commands are written and what they print; the order of a rotation is `app.erasure.masters`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import fail, operator, run

if TYPE_CHECKING:
    from app.cells.settings import CellSettings
    from app.vault import LocalKeys

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]

fleet_keys_app = typer.Typer(
    cls=Listing,
    help="The keys that seal and sign for the fleet, with the operator's key.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def rotate_master(
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only make the next key, to be copied to the other instances.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Delete the old keys here, where nothing needs them any more.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Put a new master key in the place of the present one, and wrap anew what that had wrapped.

    It works on VOXPLANE_DATA and DATABASE_URL of this machine, as `voxplane serve` does; instances that run need not be
    restarted. With one instance: run it, then with --finish. With several: run it with --prepare on one, copy
    master-next.key into VOXPLANE_DATA of all others, run it on each of them, and last with --finish on each.

    \b
    Example:
      voxplane keys rotate-master --prepare
    """
    if prepare and finish:
        raise fail("--prepare and --finish are two steps: give one of them", 2)
    run(lambda: _rotate_master("prepare" if prepare else "finish" if finish else "rotate", json_))


async def _rotate_master(step: str, json_: bool) -> None:
    from app.erasure import masters
    from app.preflight import check_database
    from app.settings import Settings
    from app.vault import MASTER_KEY_FILE, LocalKeys, VaultError

    settings = Settings.from_env()
    folder = settings.data
    file = folder / MASTER_KEY_FILE
    if not file.exists():
        raise fail(f"there is no {file}: set VOXPLANE_DATA to the folder of an instance", 2)
    try:
        if step == "prepare":
            path, _ = masters.prepare(folder)
            _say({"next": str(path)}, f"{path}\ncopy it into VOXPLANE_DATA of every other instance", json_)
            return
        for cell in settings.all_cells:  # before a file is touched
            await check_database(cell.url, schema=True, name=cell.variable)
        if step == "finish":
            await _finish(settings.all_cells, folder, LocalKeys(file.read_bytes()), json_)
            return
        if not (folder / masters.NEXT_FILE).exists() and not masters.old_keys(folder):
            masters.prepare(folder)
        masters.turn(folder, datetime.now(UTC))
        told = await masters.rewrap(settings.all_cells, LocalKeys.from_file(file))
    except VaultError as error:
        raise fail(f"{folder}: {error}") from None
    if told.unopened:
        typer.echo(f"voxplane: {told.unopened} secrets open under no master key that is here", err=True)
    counts = {"looked_at": told.looked_at, "rewrapped": told.rewrapped, "unopened": told.unopened}
    _say(counts, f"{told.rewrapped} of {told.looked_at} secrets were wrapped anew", json_)


async def _finish(cells: Iterable[CellSettings], folder: Path, newest: LocalKeys, json_: bool) -> None:
    from app.erasure import masters

    told = await masters.rewrap(cells, newest, change=False)
    if told.unopened:
        raise fail(
            f"{told.unopened} secrets still need an old master key:"
            " run `voxplane keys rotate-master` on every instance first"
        )
    gone = masters.old_keys(folder)
    masters.remove(gone)
    _say({"removed": [str(p) for p in gone]}, "\n".join(f"removed {p}" for p in gone), json_)


@fleet_keys_app.command("list")
def fleet_keys_list(json_: JsonFlag = False) -> None:
    """List them, without their secrets.

    \b
    Example:
      voxplane fleet-keys list
    """

    async def work() -> None:
        async with operator() as api:
            found = await api.request("GET", "/admin/v1/fleet-keys")
        _say(found, _lines(found), json_)

    run(work)


@fleet_keys_app.command("rotate")
def fleet_keys_rotate(
    kind: Annotated[str, typer.Option(help="fleet, signing or both.")] = "both",
    lead: Annotated[
        int | None, typer.Option(min=0, max=3_600, help="Seconds until the new key is used.", metavar="S")
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2_592_000,
            help="Seconds for which those before still open; 0: not at all.",
            metavar="S",
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Make new keys; those before them open for the overlap, then nothing opens that they had sealed.

    \b
    Example:
      voxplane fleet-keys rotate --kind fleet --lead 5 --overlap 0
    """
    if kind not in ("fleet", "signing", "both"):
        raise fail(f"--kind is fleet, signing or both, not {kind!r}", 2)
    body: dict[str, Any] = {"kinds": ["fleet", "signing"] if kind == "both" else [kind]}
    body |= {"lead_s": lead} if lead is not None else {}
    body |= {"overlap_s": overlap} if overlap is not None else {}

    async def work() -> None:
        async with operator() as api:
            found = await api.request("POST", "/admin/v1/fleet-keys/rotate", body)
        _say(found, _lines(found), json_)

    run(work)


def _lines(found: dict[str, Any]) -> str:
    return "\n".join(
        f"{key['id']}  {key['kind']:<8} used from {key['used_from']}  until {key['drops_at'] or '–'}"
        for key in found["data"]
    )


def _say(document: dict[str, Any], text: str, json_: bool) -> None:
    typer.echo(json.dumps(document) if json_ else text)
