"""Runs the SQL scripts of a revision. Decides nothing about the schema: that stands in ``sql/<revision>/*.sql``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

SQL = Path(__file__).parent / "sql"


def run_scripts(revision: str) -> None:
    """Executes the revision's scripts in the order of their names, in the migration's transaction."""
    adapted: Any = op.get_bind().connection.dbapi_connection
    for script in sorted((SQL / revision).glob("*.sql")):
        text = script.read_text(encoding="utf-8")
        adapted.run_async(lambda driver, text=text: driver.execute(text))
