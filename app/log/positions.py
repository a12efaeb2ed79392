"""Where a reader of a project's feed stands, and how that is written as a cursor. Pure.

A cursor belongs to a project and to a filter, and says so by two digests: with another filter the reader would be given a hole
that nobody sees. It is not secret and not signed. One that somebody makes up reads nothing but his own project's events, from
another place; one that lies ahead of the log, or before what is still kept, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app import cursors
from app.errors import BadRequest, Gone
from app.ids import parse
from app.log.filters import EventFilter, digest_of
from regions.wire import ids

CURSOR_KIND = "feed"
ZERO = UUID(int=0)
LAST = UUID(int=(1 << 128) - 1)
SEQ_MAX = (1 << 31) - 1


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """After this event; (0, zero, 0) is the beginning."""

    feed_xid: int = 0
    call_id: UUID = ZERO
    seq: int = 0


BEGINNING = Position()


@dataclass(frozen=True, slots=True)
class Scope:
    """What a cursor belongs to."""

    project: str
    filter: str

    def cursor(self, at: Position) -> str:
        return cursors.encode(
            CURSOR_KIND, self.project, self.filter, at.feed_xid, ids.encode(ids.CALL, at.call_id), at.seq
        )

    def position(self, cursor: str) -> Position:
        """Raises `BadRequest` ``bad_cursor`` or ``cursor_mismatch``."""
        match cursors.decode(CURSOR_KIND, cursor):
            case [str(project), str(wanted), int(feed_xid), str(call), int(seq)]:
                call_id = parse(ids.CALL, call)
                if call_id is not None and 0 <= feed_xid < 1 << 62 and 0 <= seq <= SEQ_MAX:
                    self._check(project, wanted)
                    return Position(feed_xid, call_id, seq)
        raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=cursors.FIX)

    def _check(self, project: str, wanted: str) -> None:
        if project != self.project:
            raise BadRequest(
                "The cursor was made for another project.",
                code="cursor_mismatch",
                fix="Use it with a key of the project it was made for.",
            )
        if wanted != self.filter:
            raise BadRequest(
                "The cursor was made with another filter.",
                code="cursor_mismatch",
                fix="Ask with the same types, call_id and metadata as before, or start again without the cursor.",
            )


def scope_of(project_id: UUID, wanted: EventFilter) -> Scope:
    return Scope(digest_of("project", project_id), wanted.digest)


def before(horizon: int) -> Position:
    """The last position there can be below the horizon."""
    return Position(horizon - 1, LAST, SEQ_MAX)


def check_kept(after: Position, kept_xid: int, oldest: str) -> None:
    """`kept_xid`: the newest number among the events that were dropped for their age. Raises `Gone` ``cursor_expired`` for a
    place behind which some may be missing, with the cursor of the beginning."""
    if BEGINNING < after < before(kept_xid + 1):
        raise expired(oldest)


def expired(oldest: str) -> Gone:
    return Gone(
        "The cursor is older than the events that are kept.",
        code="cursor_expired",
        fix="Start again at the oldest event that is kept: use `oldest_cursor`. What you have seen already comes again.",
        extra={"oldest_cursor": oldest},
    )


def check_reached(feed_xid: int, horizon: int) -> None:
    """Raises `BadRequest` ``bad_cursor`` for a place that the log has not come to: its reader would be given nothing, and never
    what is written until the log is there. `horizon`: asked for since there has been a reader at that place."""
    if feed_xid >= horizon:
        raise BadRequest(
            "The cursor lies ahead of the log.",
            code="bad_cursor",
            fix="Start again without the cursor: it is forged, or the database was set back.",
        )
