"""What a failed statement shows the database to be in: a name that is documented, and never a class of the driver."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from app.connection import CommitUnknown, trouble_of
from app.primary import NoPrimary

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbooks" / "database-down.md"


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), "no_connections"),
        (asyncpg.DiskFullError("no space left on device"), "disk_full"),
        (asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT"), "read_only"),
        (asyncpg.CannotConnectNowError("the database system is starting up"), "unreachable"),
        (ConnectionRefusedError(), "unreachable"),
        (TimeoutError(), "slow"),
        (CommitUnknown("cut short"), "not_replicated"),
        (NoPrimary("none"), "no_primary"),
        (asyncpg.UniqueViolationError("duplicate key"), ""),
    ],
)
def test_a_trouble_has_a_name_that_the_runbook_knows(error: Exception, trouble: str) -> None:
    assert trouble_of(error) == trouble
    assert not trouble or f"`{trouble}`" in RUNBOOK.read_text()
