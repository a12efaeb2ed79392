"""Brings a database to the newest schema, and tells it which cell it is. Decides where the scripts are, what to call, and that a
database which stands at the newest revision needs nothing; Alembic does the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

import migrations
from app.cells.identity import check_cell
from app.cells.settings import CellSettings
from app.primary import Hosts

FOLDER = Path(migrations.__file__).parent
CONNECT_WITHIN_S = 10.0
STANDS_AT = "select version_num from alembic_version"


async def migrate(database_url: str) -> None:
    """Upgrades to the newest revision; doing it twice, or on several instances at once, changes nothing."""
    if await _revision(database_url) != newest():
        await asyncio.to_thread(_upgrade, database_url)


async def begin(cell: CellSettings) -> None:
    """The cell's database, migrated before, remembers from now on what it is; raises `WrongCell` where it is another."""
    connection = await Hosts(cell.url).connect(timeout=CONNECT_WITHIN_S)
    try:
        await connection.execute("set role vx_admin")
        await check_cell(connection, cell.number, cell.jurisdiction)
    finally:
        await connection.close()


def newest() -> str:
    """Revisions are numbered, and their files are named ``v<number>_<what>.py``."""
    return max(path.stem[1:].partition("_")[0] for path in (FOLDER / "versions").glob("v*_*.py"))


async def _revision(database_url: str) -> str | None:
    connection = await Hosts(database_url).connect(timeout=CONNECT_WITHIN_S)
    try:
        return await connection.fetchval(STANDS_AT)  # type: ignore[no-any-return]
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()


def _upgrade(database_url: str) -> None:
    # half a second of imports that a start on a database of today does without
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")
