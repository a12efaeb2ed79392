"""What the console shows to whom, what it takes from whom, and that nothing that people write is anything but text."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from uuid import uuid4

import httpx
import pytest
from litestar.routes import HTTPRoute

from app.console.pages import DONE, PAGES
from app.main import create_app
from regions.wire import ids
from tests.support.api import Api, Project
from tests.support.fleet import add_region
from tests.support.hooks import superuser
from tests.support.people import Browser, account, signed_in
from tests.support.schemas import documented

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>{{7*7}}%}{% raw %}&lt;"


class Markup(HTMLParser):
    """What a browser takes for elements and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        own = str(given.get("src", "")).startswith("/console/assets/")
        if (tag == "script" and not own) or tag in ("img", "iframe", "object", "embed", "style"):
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            outside = name in ("href", "src", "action") and not str(value).startswith(("/console", "#"))
            if name.startswith("on") or name == "style" or (outside and tag != "use"):
                self.faults.append(f"<{tag} {name}={value}>")


def harmless(page: httpx.Response) -> None:
    assert Markup(page.text).faults == []
    assert "49%}" not in page.text, "no template was made of it"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["cache-control"] == "no-store"


def posts(api: Api) -> list[str]:
    """Every address of the console that takes a form of somebody who is signed in."""
    app = create_app(api.settings)
    found = [
        r.path
        for r in app.routes
        if isinstance(r, HTTPRoute) and r.path.startswith("/console") and "POST" in r.methods
    ]
    return [p for p in found if "/sign-in" not in p]


async def test_no_form_is_taken_that_is_not_of_this_session(api: Api, project: Project) -> None:
    came, _ = await signed_in(api, "csrf@c.example", {project.id: "owner"}, operator=True)
    other, _ = await signed_in(api, "other@c.example", {project.id: "owner"}, operator=True)
    token, others = await came.token(), await other.token()
    assert token != others
    paths = posts(api)
    assert len(paths) > 12
    for template in paths:
        path = template.replace("{project:str}", project.id)
        path = re.sub(r"\{[a-z]+:str\}", "x", path)
        for fields, headers in (
            ({}, {}),
            ({"csrf": ""}, {}),
            ({"csrf": others}, {}),
            ({"csrf": token + "x"}, {}),
            ({"csrf": token}, {"origin": "https://evil.example"}),
            ({"csrf": token}, {"origin": "null"}),
            ({"csrf": token}, {"sec-fetch-site": "cross-site"}),
            ({"csrf": token}, {"sec-fetch-site": "same-site"}),
        ):
            answer = await came.post(path, {"name": "n", "role": "viewer"} | fields, headers=headers)
            assert answer.status_code == 403, (path, fields, headers, answer.status_code)
            assert "form_stale" in answer.text or "another session" in answer.text, path
        bare = await came.client.post(path, data={"csrf": token})
        assert bare.status_code == 403, "nothing says where it comes from"
        json = await came.client.post(path, json={"csrf": token}, headers={"origin": came.origin})
        assert json.status_code == 400, path
    assert len((await project.client.get("/v1/keys")).json()["data"]) == 1


async def test_who_is_not_signed_in_sees_nothing(api: Api, project: Project) -> None:
    came = Browser(await api.client(), api.url)
    for page in (
        "",
        "/map",
        "/fleet",
        "/people",
        "/fleet/live",
        f"/p/{project.id}/keys",
        f"/p/{project.id}/map/live",
        "/nope",
    ):
        answer = await came.get(f"/console{page}")
        assert answer.status_code == 303 and answer.headers["location"].startswith("/console/sign-in"), page
        assert project.id not in answer.text
    for path in posts(api):
        assert (await came.post(path.replace("{project:str}", project.id))).status_code in (401, 404)


async def test_a_person_sees_no_more_than_the_role_and_no_other_project(api: Api, project: Project) -> None:
    foreign = await api.project()
    viewer, _ = await signed_in(api, "viewer@c.example", {project.id: "viewer"})
    for path, status in (
        (f"/console/p/{project.id}/map", 200),
        (f"/console/p/{project.id}/keys", 403),
        (f"/console/p/{foreign.id}/map", 404),
        (f"/console/p/{foreign.id}/keys", 404),
        (f"/console/p/{foreign.id}/map/live", 404),
        ("/console/p/prj_00000000000000000000000000/map", 404),
        ("/console/p/x/map", 404),
        ("/console/map", 403),
        ("/console/fleet", 403),
        ("/console/fleet/live", 403),
        ("/console/fleet/regions/us-east", 403),
        ("/console/people", 403),
    ):
        answer = await viewer.get(path)
        assert answer.status_code == status, path
        harmless(answer)
    for path, fields in (
        (f"/console/p/{project.id}/keys", {"name": "n", "role": "viewer"}),
        ("/console/people", {"email": "x@c.example"}),
        ("/console/fleet/regions/us-east/cordon", {}),
        ("/console/fleet/edges/edge_x/rotate-key", {}),
        ("/console/fleet/drills", {"target": "region.loss us-east"}),
    ):
        assert (await viewer.send(path, fields)).status_code == 403, path
    for path in (f"/console/p/{foreign.id}/keys", f"/console/p/{foreign.id}/members"):
        assert (
            await viewer.send(path, {"name": "n", "email": "viewer@c.example", "role": "viewer"})
        ).status_code == 404
    operator, _ = await signed_in(api, "op@c.example", operator=True)
    assert (await operator.get(f"/console/p/{project.id}/map")).status_code == 404, (
        "the platform's operators own no calls"
    )
    assert (await operator.get("/console/people")).status_code == 200


async def test_keys_and_members(api: Api, project: Project) -> None:
    admin, me = await signed_in(api, "admin@c.example", {project.id: "admin"})
    await account(api, "new@c.example")
    page = f"/console/p/{project.id}/keys"

    made = await admin.send(page, {"name": "from the console", "role": "developer"})
    bound = await admin.send(
        page, {"name": "bound", "role": "viewer", "days": "30", "allow_from": "192.0.2.0/24, 2001:db8::/48"}
    )
    other = re.search(r"vx_test_\w+", bound.text)
    assert other is not None and "192.0.2.0/24" in bound.text
    assert (await (await api.client(other[0])).get("/v1/calls")).status_code in (401, 403), (
        "it is not used from here"
    )
    secret = re.search(r"vx_test_\w+", made.text)
    assert made.status_code == 200 and secret is not None
    client = await api.client(secret[0])
    assert (await client.get("/v1/calls")).status_code == 200
    assert secret[0] not in (await admin.get(page)).text, "it is shown once"
    for fields, status in (
        ({"name": "n", "role": "owner"}, 403),
        ({"name": "", "role": "viewer"}, 422),
        ({"name": "x" * 200, "role": "viewer"}, 422),
        ({"name": "n", "role": "emperor"}, 422),
        ({"name": "n"}, 422),
        ({"name": "n", "role": "viewer", "days": "9999999999"}, 400),
        ({"name": "n", "role": "viewer", "allow_from": "everywhere"}, 422),
    ):
        refused = await admin.send(page, fields)
        assert refused.status_code == status, fields
        harmless(refused)
    key = next(
        k for k in (await project.client.get("/v1/keys")).json()["data"] if k["name"] == "from the console"
    )
    assert (await admin.send(f"{page}/{key['id']}/revoke")).headers["location"].endswith("?done=key_revoked")
    assert (await client.get("/v1/calls")).status_code == 401

    members = f"/console/p/{project.id}/members"
    assert (await admin.send(members, {"email": "new@c.example", "role": "viewer"})).status_code == 303
    assert (await admin.send(members, {"email": "new@c.example", "role": "owner"})).status_code == 403
    assert (await admin.send(members, {"email": "nobody@c.example", "role": "viewer"})).status_code == 404
    assert (await admin.send(members, {"email": "new@c.example", "role": "emperor"})).status_code == 422
    listed = (await project.client.get("/v1/members")).json()["data"]
    assert {m["email"]: m["role"] for m in listed} == {"admin@c.example": "admin", "new@c.example": "viewer"}
    new = next(m["id"] for m in listed if m["email"] == "new@c.example")
    assert (await admin.send(f"{members}/{new}/remove")).status_code == 303
    assert (await project.client.delete(f"/v1/members/{new}")).status_code == 404
    nobody = await project.client.put("/v1/members", json={"email": "nobody@example.org", "role": "viewer"})
    assert nobody.status_code == 404 and 404 in documented("setMember")
    assert [m["id"] for m in (await project.client.get("/v1/members")).json()["data"]] == [me]


async def test_the_last_owner_among_people_stays(api: Api, project: Project) -> None:
    owner, me = await signed_in(api, "owner@c.example", {project.id: "owner"})
    assert (await owner.send(f"/console/p/{project.id}/members/{me}/remove")).status_code == 409
    demoted = await owner.send(
        f"/console/p/{project.id}/members", {"email": "owner@c.example", "role": "viewer"}
    )
    assert demoted.status_code == 409
    assert (await owner.get(f"/console/p/{project.id}/keys")).status_code == 200


async def test_hostile_text_is_text_on_every_page(api: Api) -> None:
    project = await api.project(name=HOSTILE)
    await add_region(api, "us-east")
    person = await account(api, "hostile@c.example", {project.id: "owner"}, operator=True, name=HOSTILE)
    came, _ = await signed_in(api, "reader@c.example", {project.id: "owner"}, operator=True, name=HOSTILE)
    await project.client.post("/v1/keys", json={"name": HOSTILE, "role": "viewer"})
    for page in PAGES:
        path = f"/console/p/{project.id}/{page.key}" if page.scope == "project" else f"/console/{page.key}"
        shown = await came.get(path, params={"done": HOSTILE, "q": HOSTILE, "next": HOSTILE})
        assert shown.status_code == 200, path
        harmless(shown)
        assert len(shown.content) <= 200_000
    for path, fields in (
        (f"/console/p/{project.id}/keys", {"name": HOSTILE, "role": HOSTILE}),
        (f"/console/p/{project.id}/members", {"email": HOSTILE, "role": "viewer"}),
        ("/console/people", {"email": HOSTILE, "name": HOSTILE}),
        ("/console/fleet/drills", {"target": HOSTILE, "label": HOSTILE}),
        ("/console/fleet/drills", {"target": "region.loss us-east", "percent": HOSTILE}),
        (f"/console/fleet/regions/{HOSTILE.replace('/', '')}/drain", {"within_s": "10"}),
        (f"/console/people/{person}/memberships", {"project": HOSTILE, "role": HOSTILE}),
    ):
        refused = await came.send(path, fields)
        assert 400 <= refused.status_code < 500, (path, refused.status_code)
        harmless(refused)
    for path in (
        f"/console/{HOSTILE}",
        f"/console/p/{HOSTILE}",
        f"/console/sign-in?next={HOSTILE}&done={HOSTILE}",
    ):
        harmless(await came.get(path))


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"csrf=1&csrf=2", "application/x-www-form-urlencoded", 400),
        (b"a=%00", "application/x-www-form-urlencoded", 400),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"\xff=1", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % i for i in range(200)), "application/x-www-form-urlencoded", 400),
        (b"a=" + b"x" * 70_000, "application/x-www-form-urlencoded", 413),
        (b"a=" + b"x" * 300_000, "application/x-www-form-urlencoded", 413),
        (b"a=1", "multipart/form-data; boundary=x", 400),
        (b"a=1", "text/plain", 400),
    ],
)
async def test_a_form_that_is_none(
    api: Api, project: Project, content: bytes, kind: str, status: int
) -> None:
    came, _ = await signed_in(api, f"{uuid4().hex}@c.example", {project.id: "owner"})
    headers = {"origin": came.origin, "content-type": kind}
    for path in (f"/console/p/{project.id}/keys", "/console/sign-in"):
        answer = await came.client.post(path, content=content, headers=headers)
        assert answer.status_code == status, path
        harmless(answer)


async def test_files_are_kept_and_nothing_else_is_served(api: Api) -> None:
    came = Browser(await api.client(), api.url)
    page = await came.get("/console/sign-in")
    for path in re.findall(r"(?:src|href)=\"(/console/assets/[^\"#]+)", page.text):
        found = await came.get(path)
        assert found.status_code == 200 and "immutable" in found.headers["cache-control"], path
    for path in ("..%2frender.py", "%2e%2e/render.py", "nope.js", "console.css%00"):
        assert (await came.get(f"/console/assets/{path}")).status_code in (303, 400, 404), path
    assert not re.search(r"(src|href)=\"(https?:)?//", page.text), "no address of another"


def test_every_word_of_done_that_is_used_has_its_sentence() -> None:
    from app.console import render

    used = {
        word
        for path in render.HERE.glob("*.py")
        for word in re.findall(r'done="([a-z_]+)"', path.read_text())
    }
    assert used <= set(DONE)


# -------------------------------------------------------------------------------------------------------------- what lives


async def test_a_stream_ends_with_its_session(api: Api, project: Project) -> None:
    came, person = await signed_in(api, "ends@c.example", {project.id: "viewer"})
    async with asyncio.timeout(20), came.client.stream("GET", f"/console/p/{project.id}/map/live") as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        await api.operator.delete(f"/admin/v1/people/{person}")
        async for _ in lines:
            pass


async def test_an_edge_is_asked_for_another_key_and_shows_what_was_done_with_the_one_before(api: Api) -> None:
    edge_id, _ = await add_region(api, "af-south")
    edge = ids.encode(ids.EDGE, edge_id)
    came, _ = await signed_in(api, "rotates@c.example", operator=True)
    page = (await came.get("/console/fleet")).text
    assert "under an hour" in page
    assert "another one asked for" not in page
    answer = await came.send(f"/console/fleet/edges/{edge}/rotate-key", {"from": "detail"})
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/console/fleet/edges/{edge}?done=edge_key_asked",
    )
    assert (await api.operator.get(f"/admin/v1/edges/{edge}")).json()["key"]["asked_at"] is not None
    await api.control.db.pool("admin").execute(
        "update vx.edges set key_since = now() - interval '12 days', key_misuses = 3, key_misused_at = now(), software = '0.2.0<b>'"
        " where id = $1",
        edge_id,
    )
    for path in ("/console/fleet", f"/console/fleet/edges/{edge}"):
        shown = await came.get(path)
        harmless(shown)
        assert "12 d" in shown.text
        assert "another one asked for" in shown.text
        assert "0.2.0&lt;b&gt;" in shown.text
    assert "a key of this edge that holds no more" in shown.text
    assert (await came.send("/console/fleet/edges/edge_x/rotate-key", {})).status_code == 404


async def test_the_fleet_is_drained_and_taken_back(api: Api) -> None:
    await add_region(api, "sa-east")
    came, _ = await signed_in(api, "drains@c.example", operator=True)
    for path in ("/console/fleet", "/console/fleet/regions/sa-east"):
        shown = await came.get(path)
        assert shown.status_code == 200 and "sa-east" in shown.text
        harmless(shown)
    for verb, state in (
        ("cordon", "cordoned"),
        ("drain", "draining"),
        ("uncordon", "active"),
        ("evacuate", "draining"),
        ("uncordon", "active"),
    ):
        answer = await came.send(f"/console/fleet/regions/sa-east/{verb}", {"within_s": "60"})
        assert answer.status_code == 303, answer.text
        region = await api.operator.get("/admin/v1/regions/sa-east")
        assert region.json()["admin_state"] == state, verb
    page = (await came.get("/console/fleet")).text
    assert "drain of" in page and "canceled" in page
    for path, fields, status in (
        ("/console/fleet/regions/nope/drain", {}, 404),
        ("/console/fleet/regions/sa-east/explode", {}, 404),
        ("/console/fleet/regions/sa-east/drain", {"within_s": "-1"}, 400),
        ("/console/fleet/regions/sa-east/drain", {"within_s": "0"}, 422),
        ("/console/fleet/regions/sa-east/drain", {"within_s": "9" * 9}, 422),
        ("/console/fleet/edges/edge_x/drain", {}, 404),
        ("/console/fleet/drills/drill_x/stop", {}, 404),
    ):
        assert (await came.send(path, fields)).status_code == status, (path, fields)
    for path in (
        "/console/fleet/regions/nope",
        "/console/fleet/edges/x",
        "/console/fleet/drills/x",
        "/console/fleet/drills/x/live",
    ):
        assert (await came.get(path)).status_code == 404, path


async def test_a_page_of_many_edges_stays_small_and_shows_those_that_need_somebody(api: Api) -> None:
    first, _ = await add_region(api, "me-central")
    came, _ = await signed_in(api, "many@c.example", operator=True)
    admin = api.control.db.pool("admin")
    await admin.execute(
        "insert into vx.edges (id, region, name, incarnation, public_key, media_url, http_url, capacity_calls, admin_state, stopped)"
        " select gen_random_uuid(), region, 'many-' || n, incarnation, public_key, media_url, http_url, 10,"
        "        case when n = 150 then 'cordoned' else 'active' end, case when n < 50 then incarnation end"
        "   from vx.edges, generate_series(1, 150) n where id = $1",
        first,
    )
    try:
        await api.control.fleet.refresh()
        page = await came.get("/console/fleet")
        assert len(page.content) <= 200 * 1024, len(page.content)
        assert "many-150" in page.text, "it is cordoned: somebody is to take it back"
        assert "many-42<" not in page.text, "it has stopped"
        assert " more, healthy ones" in page.text
    finally:
        async with superuser(api) as database:
            await database.execute("delete from vx.edges where name like 'many-%'")
        await api.control.fleet.refresh()
