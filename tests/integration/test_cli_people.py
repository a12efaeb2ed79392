"""``voxplane people`` and ``voxplane console``, as they are typed."""

from __future__ import annotations

import json

import pytest

from tests.conftest import OPERATOR_KEY
from tests.support.api import Api, Project
from tests.support.cli import Done, voxplane
from tests.support.people import PASSWORD, browser

pytestmark = pytest.mark.slow


async def test_people_are_made_changed_and_removed(api: Api, project: Project) -> None:
    env = {"VOXPLANE_URL": api.url, "VOXPLANE_OPERATOR_KEY": OPERATOR_KEY}

    async def typed(*words: str) -> Done:
        return await voxplane(*words, **env)

    made = await typed(
        "people", "create", "ada@cli.example", "--project", project.id, "--role", "admin", "--json"
    )
    assert made.code == 0, made.err
    person = json.loads(made.out)
    assert person["memberships"] == [{"project": project.id, "role": "admin"}]
    assert person["link"]["url"].startswith(f"{api.url}/console/sign-in/password#")
    came = await browser(api)
    secret = person["link"]["url"].partition("#")[2]
    assert (
        await came.post("/console/sign-in/password", {"secret": secret, "password": PASSWORD})
    ).status_code == 303

    again = await typed("people", "create", "ada@cli.example")
    nobody = await typed("people", "grant", "nobody@cli.example", project.id)
    no_role = await typed("people", "grant", "ada@cli.example", project.id, "--role", "emperor")
    nothing = await typed("people", "grant", "ada@cli.example")
    assert (again.code, "already" in again.err) == (1, True)
    assert (nobody.code, "no such person" in nobody.err) == (1, True)
    assert (no_role.code, nothing.code) == (1, 2)

    granted = await typed(
        "people", "grant", "ada@cli.example", project.id, "--role", "viewer", "--operator", "--json"
    )
    assert json.loads(granted.out)["operator"] is True
    assert json.loads(granted.out)["memberships"] == [{"project": project.id, "role": "viewer"}]
    link = await typed("console", "ada@cli.example")
    other = await browser(api)
    signed = await other.post("/console/sign-in/link", {"secret": link.out.strip().partition("#")[2]})
    assert (link.code, signed.status_code) == (0, 303)
    listed = await typed("people", "list")
    assert "ada@cli.example" in listed.out
    withdrawn = await typed("people", "withdraw", "ada@cli.example", project.id, "--operator", "--json")
    assert (json.loads(withdrawn.out)["memberships"], json.loads(withdrawn.out)["operator"]) == ([], False)
    removed = await typed("people", "remove", "ada@cli.example")
    assert (removed.code, removed.out.split(",")[0]) == (0, "removed ada@cli.example")
    id_ = removed.out.split()[-1]
    assert "erased from" in (await typed("people", "erase", id_)).out
    assert (await typed("people", "erase", "ada@cli.example")).code == 1
    await typed("people", "create", "bob@cli.example")
    both = json.loads((await typed("people", "remove", "bob@cli.example", "--erase", "--json")).out)
    assert both["email"] == "bob@cli.example" and both["entries_erased"] >= 2
    gone = await typed("console", "ada@cli.example")
    assert (gone.code, "no such person" in gone.err) == (1, True)
