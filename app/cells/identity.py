"""Which cell a database is. Decides that one which remembers to be another is not used, whatever the settings say."""

from __future__ import annotations

import asyncpg

BE_CELL = "select number, jurisdiction from vx.be_cell($1, $2)"


class WrongCell(ConnectionError):
    """This database is another cell's, or lies elsewhere than the settings say: nothing is read from it or written to it."""


async def check_cell(connection: asyncpg.Connection, cell: int, jurisdiction: str) -> None:
    """Asked of every new connection, for a name may lead elsewhere tomorrow. A database that was never told what it is remembers
    this from now on. `jurisdiction`: empty where the deployment names none. Raises `WrongCell`, or what the driver raises."""
    number, place = await connection.fetchrow(BE_CELL, cell, jurisdiction or None)
    if (number, place or "") != (cell, jurisdiction):
        raise WrongCell(f"this database is {_named(number, place)} and not {_named(cell, jurisdiction)}")


def _named(number: int, jurisdiction: str | None) -> str:
    return f"cell {number} in {jurisdiction}" if jurisdiction else f"cell {number} without a jurisdiction"
