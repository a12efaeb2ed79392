"""One connection to the log: hears when a commit was not waited for, and tells its pool when its server is no use any more.

Decides what an acknowledgement is worth. Where PostgreSQL waits for standbys and that wait is cut short (cancelled, or
the server told to stop) the driver is given success *and* a warning: the commit is visible, perhaps on one copy only. Such
a commit is unknown, and here it is an error, `CommitUnknown`, for whatever statement or transaction it was: no caller can
forget to look. What is done about it (answer ``busy``, 503, claim again) is theirs.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError

from app.cells.identity import WrongCell
from app.primary import NoPrimary

SUSPECT_AFTER_S = 3.0
"""A statement that was given up after so long casts doubt on its server."""

DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""All that a statement on the driver may raise. Its internal error is what it says where a connection is lost in its midst."""

# SQLSTATE classes in which the fault is not the statement's: connection, rolled back, no resources, lock not available,
# read-only, operator, system
AWAY = ("08", "40", "53", "55P03", "25006", "57", "58")
# of these, the ones after which another server has to be looked for
MOVED = ("08", "25006", "57P01", "57P02", "57P03")
# what PostgreSQL says of a wait for standbys that was cut short; nothing of ours raises a plain warning
CUT_SHORT = ("01000", "57P01")


class CommitUnknown(TimeoutError):
    """Committed here, and not known to be anywhere else. To be treated as a time-out: the same may be sent again."""


class Connection(asyncpg.Connection):  # type: ignore[misc]  # untyped driver
    """Returned to its pool without the driver's usual round trip that undoes session state: our statements leave none (what
    they set is local to the transaction, and none listens or takes session locks). An open transaction is still rolled back."""

    on_trouble: Callable[[Connection, BaseException], Awaitable[None]] | None = None
    generation = 0
    _warned = False

    def get_reset_query(self) -> str:
        return ""

    def _hear(self, _: Any, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING" and message.sqlstate in CUT_SHORT:
            self._warned = True


async def _told(connection: Connection, under_way: Awaitable[Any]) -> Any:
    """A server that ends says so on every connection, also on one that lies idle. Until the end of the stream comes too, the
    driver knows the connection for open and itself for busy, and raises what it raises for a fault of its own."""
    try:
        return await under_way
    except asyncpg.InternalClientError as error:
        connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("the server has ended the connection") from error


def _watched(statement: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(statement)
    async def watched(self: Connection, *args: Any, **options: Any) -> Any:
        self._warned = False
        began_s = time.monotonic()
        self.add_log_listener(self._hear)
        try:
            result = await _told(self, statement(self, *args, **options))
            if self._warned:
                raise CommitUnknown("the wait for the standbys was cut short")
        except (Exception, asyncio.CancelledError) as error:
            # a cancelled statement is a deadline of ours where it has taken long, and else the caller's own wish
            quick = isinstance(error, asyncio.CancelledError) and time.monotonic() - began_s < SUSPECT_AFTER_S
            if self.on_trouble is not None and not quick:
                await self.on_trouble(self, error)
            raise
        finally:
            self.remove_log_listener(self._hear)
        return result

    return watched


for _name in ("execute", "executemany", "fetch", "fetchval", "fetchrow", "fetchmany"):
    setattr(Connection, _name, _watched(getattr(asyncpg.Connection, _name)))


def sqlstate(error: BaseException) -> str:
    """Of the driver's error or the toolkit's around it; empty where there is none."""
    inner = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(inner, "sqlstate", None) or "")


def is_away(error: BaseException) -> bool:
    """The database is the matter and not what was asked of it: worth the same again."""
    state = sqlstate(error)
    if isinstance(error, asyncpg.PostgresError | DBAPIError):
        return not state or state.startswith(AWAY)
    return isinstance(error, DATABASE_ERRORS)


def has_moved(error: BaseException) -> bool:
    """Another server may take writes now, and this connection leads nowhere."""
    return isinstance(error, OSError | TimeoutError | asyncio.CancelledError) or sqlstate(error).startswith(
        MOVED
    )


def trouble_of(error: BaseException) -> str:
    """A stable name for the state that `error` shows the database to be in; empty where it shows none."""
    state = sqlstate(error)
    if isinstance(error, CommitUnknown):
        return "not_replicated"
    if isinstance(error, WrongCell):
        return "wrong_cell"
    if isinstance(error, NoPrimary):
        return "no_primary"
    if state == "25006":
        return "read_only"
    if state == "53100":
        return "disk_full"
    if state == "53300":
        return "no_connections"
    if isinstance(error, TimeoutError | asyncio.CancelledError):
        return "slow"
    return "unreachable" if is_away(error) and (not state or state.startswith(("08", "57"))) else ""
