"""Which cells there are, where a drain stands in each, and what a copy of the fleet lets be placed. All of it pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from app.cells.mirror import shown
from app.cells.mirror_plan import DrainChanges, DrainRow, plan_drains
from app.fleet.view import EdgeState, Fleet
from app.projects.secrets import RANDOM_BYTES, cell_of, make
from app.settings import Settings, SettingsError

HOME = "postgresql://user@home/db"
OTHER = "postgresql://user@one,two/db"
ENV = {"DATABASE_URL": HOME, "CELLS": "0=us, 1=eu", "DATABASE_URL_CELL_1": OTHER}
AT = datetime(2026, 1, 1, tzinfo=UTC)
KEPT_FROM = AT - timedelta(days=1)


def test_without_cells_there_is_one_and_it_lies_nowhere() -> None:
    settings = Settings.from_env({"DATABASE_URL": HOME, "VOXPLANE_CELL": "7", "DATABASE_URL_API": OTHER})
    (lone,) = settings.all_cells
    assert (lone.number, lone.jurisdiction, lone.url, lone.urls) == (7, "", HOME, {"api": OTHER})
    assert (settings.cell, settings.database_url, settings.database_urls) == (7, HOME, {"api": OTHER})


def test_the_first_cell_is_the_home_cell() -> None:
    more = {"CELLS": "4=us,1=eu", "DATABASE_URL_CELL_1_APPEND": HOME, "VOXPLANE_CELL": "4"}
    home, other = Settings.from_env(ENV | more).all_cells
    assert (home.number, home.jurisdiction, home.home, home.url) == (4, "us", True, HOME)
    assert (other.number, other.jurisdiction, other.home, other.url) == (1, "eu", False, OTHER)
    assert other.urls == {"append": HOME}
    assert (home.variable, other.variable) == ("DATABASE_URL", "DATABASE_URL_CELL_1")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"DATABASE_URL_CELL_1": ""}, "DATABASE_URL_CELL_1"),
        ({"DATABASE_URL_CELL_1": "mysql://x"}, "set DATABASE_URL_CELL_1 to postgresql"),
        ({"DATABASE_URL": ""}, "set DATABASE_URL to postgresql"),
        ({"DATABASE_URL_CELL_2": OTHER}, "CELLS does not name"),
        ({"DATABASE_URL_CELL_0": OTHER}, "cell 0 is the home cell"),
        ({"DATABASE_URL_CELL_1_WRITER": OTHER}, "is no setting"),
        ({"DATABASE_URL_CELL_EU": OTHER}, "is no setting"),
        ({"DATABASE_URL_CELL_1": HOME}, "the database of cell 0 already"),
        ({"CELLS": "0=us,1=eu,2=eu"}, "set DATABASE_URL_CELL_2"),
        ({"CELLS": "0=us,1=eu,1=in"}, "names cell 1 twice"),
        ({"CELLS": "0=us,01=eu,1=in"}, "names cell 1 twice"),
        ({"CELLS": "0"}, "a list like 0=us,1=eu"),
        ({"CELLS": "a=us"}, "a list like 0=us,1=eu"),
        ({"CELLS": "0=us,4096=eu"}, "numbers from 0 to 4095"),
        ({"CELLS": "0=us,-1=eu"}, "a list like 0=us,1=eu"),
        ({"CELLS": "0=US"}, "a jurisdiction is"),
        ({"CELLS": "0="}, "a jurisdiction is"),
        ({"CELLS": ","}, "names no cell"),
        ({"CELLS": ",".join(f"{n}=us" for n in range(65))}, "64 at most"),
        ({"CELLS": ""}, "CELLS does not name"),
        ({"VOXPLANE_CELL": "1"}, "the home cell is 0"),
        ({"VOXPLANE_JURISDICTION": "EU"}, "VOXPLANE_JURISDICTION"),
    ],
)
def test_what_would_put_a_project_into_the_wrong_place_is_refused(more: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings.from_env(ENV | more)


def test_a_secret_names_its_cell_whatever_else_is_wrong_with_it() -> None:
    for cell in (0, 1, 61, 62, 3843):
        assert cell_of(make("live", cell, bytes(RANDOM_BYTES))) == cell
    assert cell_of("vx_test_01cut") == 1
    for text in ("", "vx_test_", "vx_test_0", "vx_test_-1", "vx_test_٣٣", "vx_op_0123456789", "nonsense" * 9):
        assert cell_of(text) is None


def drain(**more: object) -> DrainRow:
    made = DrainRow(
        id=uuid4(), region="us-east", edge_id=None, incarnation=None, verdict=None, kind="drain", force_at=AT, total=5,
        started_at=AT, outcome=None,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_cell_follows_the_home_cells_drains() -> None:
    new, known, later, over, too_new = (drain() for _ in range(5))
    forgotten = drain(started_at=AT - timedelta(days=3))
    changed = replace(later, force_at=AT + timedelta(seconds=9))
    ended = replace(over, outcome="canceled")
    own = drain(outcome="stopped")
    home = [new, known, changed, ended, replace(own, outcome=None), drain(outcome="recovered")]
    assert plan_drains(home, [known, later, over, forgotten, too_new, own], KEPT_FROM) == DrainChanges(
        end=((over.id, "canceled"), (forgotten.id, "stopped")), change=(changed,), begin=(new,)
    )
    assert plan_drains([known], [known], KEPT_FROM) == DrainChanges()


def edge(life: UUID) -> EdgeState:
    return EdgeState(
        id=uuid4(), region="us-east", name="edge-1", incarnation=life, media_url="", http_url="", capacity_calls=1, calls=0,
        health="healthy",
    )  # fmt: skip


def test_a_cell_places_nothing_on_a_life_that_it_has_not_copied() -> None:
    copied, fresh = edge(uuid4()), edge(uuid4())
    seen = shown(
        Fleet(edges=(copied, fresh)), frozenset({(copied.id, copied.incarnation), (fresh.id, uuid4())})
    )
    assert seen.edges == (copied, replace(fresh, draining=True))
