"""What is said of a PostgreSQL that does not start."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.local import postgres

ENDS = """\
2026-12-01 14:25:{s}.190 UTC [{pid}] LOG:  database system was interrupted
2026-12-01 14:25:{s}.190 UTC [{pid}] FATAL:  could not open the control file
2026-12-01 14:25:{s}.190 UTC [{pid}] LOG:  shutting down due to startup process failure
2026-12-01 14:25:{s}.191 UTC [{pid}] LOG:  terminating any other active server processes
2026-12-01 14:25:{s}.201 UTC [{pid}] LOG:  database system is shut down
"""


def said(folder: Path) -> str:
    return str(postgres._not_started(folder, folder / "postgres.log"))


def test_it_is_why_it_ended_and_the_same_each_time(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text(ENDS.format(s=41, pid=32_247))
    first = said(tmp_path)
    log.write_text(ENDS.format(s=41, pid=32_247) + ENDS.format(s=42, pid=32_269))
    assert said(tmp_path) == first
    assert first == f"PostgreSQL did not start: could not open the control file. See {log}."


def test_it_is_the_disk_where_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the log could not be written either, and ends with what was so before."""
    (tmp_path / "postgres.log").write_text("LOG:  checkpoint complete")
    assert "checkpoint" in said(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4_096))
    assert "less than 16 MiB are free" in said(tmp_path) and str(tmp_path) in said(tmp_path)
