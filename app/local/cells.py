"""The cells of a deployment of this machine beside its home cell: a PostgreSQL server each.

Decides their jurisdictions, which are those of the places in their order, and what instances are told of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from app.cells.settings import CellSettings
from app.local.postgres import Postgres
from app.migrate import migrate
from app.preflight import check_cell


@dataclass(slots=True)
class LocalCells:
    """`jurisdictions`: one for each cell, the home cell's first; none: one cell, which names none."""

    folder: Path
    jurisdictions: Sequence[str]
    fsync: bool = True
    servers: dict[int, Postgres] = field(default_factory=dict)

    async def start(self, stack: AsyncExitStack, home_url: str) -> None:
        """The home cell's database has been migrated. Raises `EngineError`, or `NotReady` where a database is another cell's."""
        for number in range(1, len(self.jurisdictions)):
            server = Postgres(self.folder / f"postgres-cell-{number}", fsync=self.fsync)
            self.servers[number] = await stack.enter_async_context(server)
            await migrate(server.dsn)
        places = self.jurisdictions or [""]
        for number, place in enumerate(places):
            url = self.servers[number].dsn if number else home_url
            await check_cell(CellSettings(number=number, jurisdiction=place, url=url, home=not number))

    @property
    def environment(self) -> dict[str, str]:
        if not self.jurisdictions:
            return {}
        cells = ",".join(f"{number}={place}" for number, place in enumerate(self.jurisdictions))
        return {"CELLS": cells} | {f"DATABASE_URL_CELL_{n}": s.dsn for n, s in self.servers.items()}
