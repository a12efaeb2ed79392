"""What must stand before an instance starts: a database that answers, new enough and with a schema, and a free port.

Decides only how to say what is missing. `voxplane up` checks a database too, before there is an instance: what only an
instance needs is imported where it is needed. A database that goes away later is waited for; one that was never there is most
likely a wrong setting, and is told at once.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from app.cells.identity import WrongCell
from app.cells.settings import CellSettings
from app.migrate import begin
from app.primary import Hosts, cut
from app.settings import Settings, SettingsError

MAJOR_MIN = 17
CONNECT_WITHIN_S = 10.0


class NotReady(Exception):
    """Something that must stand before the start does not; the text says what, and how to mend it."""


class NotAnswering(NotReady):
    """A database that may only be away for a moment."""


async def check_database(url: str, *, schema: bool = False, name: str = "DATABASE_URL") -> None:
    """Raises `NotReady`, or `SettingsError` where the URL itself is wrong. `schema`: it must have been migrated. `name`: of the
    setting that has the URL."""
    where = shown(url)
    try:
        connection = await Hosts(url).connect(timeout=CONNECT_WITHIN_S)
    except (ValueError, asyncpg.InterfaceError) as error:
        raise SettingsError(
            f"{name} cannot be used ({error}): write postgresql://user:password@host:port/database"
        ) from None
    except asyncpg.InvalidCatalogNameError:
        raise NotReady(
            f"the server of {where} has no such database: create it (createdb), or mend {name}"
        ) from None
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise NotReady(f"{where} does not let us in ({error}): mend user and password in {name}") from None
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        reason = str(error) or f"no answer within {CONNECT_WITHIN_S:g} s"
        raise NotAnswering(f"no PostgreSQL answers at {where} ({reason}): start it, or mend {name}") from None
    try:
        major = connection.get_server_version().major
        if major < MAJOR_MIN:
            raise NotReady(f"{where} is PostgreSQL {major}: Voxplane needs {MAJOR_MIN} or newer")
        if schema and not await connection.fetchval("select to_regnamespace('vx') is not null"):
            raise NotReady(f"{where} has no schema yet: run `voxplane migrate` with the same settings")
    finally:
        await connection.close()


@asynccontextmanager
async def migration_failure() -> AsyncIterator[None]:
    """Turns what the database refuses during a migration into `NotReady`; nothing was changed then."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (DBAPIError, asyncpg.PostgresError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        reason = str(cause).rpartition(">: ")[2].partition("\n")[0]
        raise NotReady(
            f"the migration failed and changed nothing ({reason}): the user of DATABASE_URL must own the database"
            " and be allowed to create roles (alter role … createrole)"
        ) from None


async def check_instance(settings: Settings) -> None:
    """All that `voxplane serve` needs; raises `NotReady` or `SettingsError`."""
    from app.vault import MASTER_KEY_FILE

    for cell in settings.all_cells:
        await check_cell(cell)
    check_listener(settings.host, settings.port)
    check_data(settings.data)
    await check_master_key(settings.database_url, settings.data / MASTER_KEY_FILE)


async def check_cell(cell: CellSettings) -> None:
    """A cell that is away is waited for, but for the home cell, without which nothing is known of the fleet."""
    try:
        for url in (cell.url, *cell.urls.values()):
            await check_database(url, schema=True, name=cell.variable)
        await begin(cell)
    except NotAnswering:
        if cell.home:
            raise
    except WrongCell as error:
        raise NotReady(f"{cell.variable}: {error}: mend it, or CELLS") from None


async def check_master_key(url: str, file: Path) -> None:
    """What is in the database was sealed with this key, or nothing was yet."""
    from app.vault import LocalKeys, VaultError

    connection = await asyncpg.connect(url, timeout=CONNECT_WITHIN_S)
    try:
        await connection.execute("set role vx_admin")
        row = await connection.fetchrow("select kid, wrapped from vx.signing_keys limit 1")
    finally:
        await connection.close()
    if row is None:
        return
    try:
        LocalKeys.from_file(file).unwrap(row["wrapped"], f"signing:{row['kid']}")
    except VaultError:
        raise NotReady(
            f"{file} is not the master key that this database was begun with: copy that file from another instance's"
            " VOXPLANE_DATA, or use a database of its own"
        ) from None


def check_listener(host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found[:1]:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        raise NotReady(
            f"{host}:{port} cannot be listened on ({error.strerror or error}):"
            " stop what listens there, or choose another VOXPLANE_PORT or VOXPLANE_HOST"
        ) from None


def check_data(folder: Path) -> None:
    """The master key lies there, or will."""
    from app.vault import MASTER_KEY_FILE

    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / MASTER_KEY_FILE
        if key.exists():
            key.open("rb").close()
        else:
            probe = folder / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise NotReady(
            f"{error.filename or folder}: {error.strerror or error}: mend that, or set VOXPLANE_DATA to a folder of your own"
        ) from None


def shown(url: str) -> str:
    """A database URL without what is secret in it."""
    _, authority, rest = cut(url)
    return authority.rpartition("@")[2] + rest.partition("?")[0].partition("#")[0]
