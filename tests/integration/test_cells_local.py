"""``voxplane up --cells 2``: two PostgreSQL servers of its own, and the commands of an operator who fills them."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from app.local.folder import temporary_folder
from regions.wire import ids
from tests.support.cli import WITHIN_S, begin, invoke, until_says, voxplane


@pytest.mark.slow
async def test_up_starts_a_server_for_each_cell_and_they_keep_their_names() -> None:
    folder = temporary_folder("voxplane-cells-up")
    env = {"VOXPLANE_DATA": str(folder)}
    begun = ("up", "--port", "0", "--regions", "1", "--instances", "1", "--cells", "2")
    process = await begin(*begun, **env)
    try:
        await until_says(process, "Ctrl-C stops everything")
        told = ("projects", "create", "Hospital", "--jurisdiction", "eu", "--json")
        made = await voxplane(*told, **env)
        assert made.code == 0, made.err
        project = json.loads(made.out)
        assert (project["cell"], project["jurisdiction"], project["name"]) == (1, "eu", "Hospital")
        assert ids.cell_of(ids.decode(ids.PROJECT, project["id"])) == 1
        key = {"VOXPLANE_API_KEY": project["key"]["secret"]}
        assert (await voxplane("keys", "list", **env, **key)).code == 0
        listed = await voxplane("projects", "list", **env)
        assert [line.split()[2:5] for line in listed.out.splitlines()] == [
            ["cell", "0", "us"],
            ["cell", "1", "eu"],
        ]
        nowhere = await voxplane("projects", "create", "x", "--jurisdiction", "in", **env)
        assert nowhere.code == 1
        assert "lies in in" in nowhere.err
    finally:
        process.terminate()
        async with asyncio.timeout(WITHIN_S):
            await process.communicate()
    again = await begin(*begun[:-2], **env)
    async with asyncio.timeout(WITHIN_S):
        _, err = await again.communicate()
    shutil.rmtree(folder)
    assert again.returncode == 1
    assert b"this database is cell 0 in us and not cell 0 without a jurisdiction" in err


def test_up_names_its_cells_itself() -> None:
    done = invoke("up", "--cells", "2", DATABASE_URL="postgresql://user@host/db")
    assert (done.code, "leave --ha out" in done.err) == (2, True)
    done = invoke("up", CELLS="0=us")
    assert (done.code, "unset CELLS" in done.err) == (2, True)
