"""The page at ``/talk``: only where it was asked for, under a policy that lets it do nothing but its work, and up to date."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from regions.edge.http import make_app
from regions.edge.settings import EdgeSettings
from regions.edge.talk_page import FOLDER, PARTS, TalkPage
from tests.support.lone_edge import lone_edge

SOURCES = Path(__file__).parents[2] / "openapi" / "clients" / "typescript"


class Up:
    up = True


async def answers(
    tmp_path: Path, talk: TalkPage | None, *paths: str, method: str = "GET"
) -> list[httpx.Response]:
    async with lone_edge(tmp_path) as edge:
        app: Any = make_app(edge.calls, Up(), talk=talk)  # type: ignore[arg-type]
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge.example") as client:
            return [await client.request(method, path) for path in paths]


async def test_an_edge_serves_no_page_unless_it_is_told_to(tmp_path: Path) -> None:
    assert [a.status_code for a in await answers(tmp_path, None, *PARTS)] == [404] * len(PARTS)
    env = {"VOXPLANE_REGION": "us-east", "VOXPLANE_EDGE_NAME": "e", "VOXPLANE_CONTROL_URLS": "http://c"}
    assert not EdgeSettings.from_env(env).talk_page
    assert EdgeSettings.from_env(env | {"VOXPLANE_TALK_PAGE": "1"}).talk_page


async def test_the_page_and_its_parts(tmp_path: Path) -> None:
    page, style, script, worklet = await answers(tmp_path, TalkPage(), *PARTS)
    for answer, name in (
        (page, "talk.html"),
        (style, "talk.css"),
        (script, "talk.js"),
        (worklet, "worklet.js"),
    ):
        assert answer.status_code == 200
        assert answer.content == (FOLDER / name).read_bytes()
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
    assert script.headers["content-type"].startswith("text/javascript")
    heads = await answers(tmp_path, TalkPage(), *PARTS, method="HEAD")
    assert [(h.status_code, h.content, h.headers["content-length"]) for h in heads] == [
        (200, b"", str(len(a.content))) for a in (page, style, script, worklet)
    ]
    assert (await answers(tmp_path, TalkPage(), "/talk", method="POST"))[0].status_code == 405
    others = await answers(
        tmp_path, TalkPage(), "/talk/", "/talk/../settings.py", "/talk/talk.html", "/talk/%2e%2e/http.py"
    )
    assert [a.status_code for a in others] == [404] * 4


def test_the_page_asks_nobody_else_and_has_no_script_of_its_own() -> None:
    html = (FOLDER / "talk.html").read_text()
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", html) == ["data:,", "talk/talk.css", "talk/talk.js"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon[a-z]+=|\bstyle=|<style", html)
    for name in ("talk.js", "worklet.js", "talk.css"):
        assert not re.search(r"https?://[a-z0-9]", (FOLDER / name).read_text()), name


@pytest.mark.parametrize("name", ["talk.js", "worklet.js"])
def test_the_scripts_are_those_of_the_sources(name: str) -> None:
    """Seen without Node: the first line names a digest of what they were made from."""
    digest = hashlib.sha256()
    sources = sorted(
        p.relative_to(SOURCES).as_posix()
        for part in ("src", "page")
        for p in (SOURCES / part).rglob("*")
        if p.is_file()
    )
    for source in sources:
        digest.update(f"{source}\0".encode() + (SOURCES / source).read_bytes() + b"\0")
    first = (FOLDER / name).read_text().partition("\n")[0]
    assert first.endswith(digest.hexdigest()), "run `make typescript-page` and commit what it writes"


@pytest.mark.parametrize("name", ["talk.html", "talk.css"])
def test_what_is_not_bundled_is_a_copy(name: str) -> None:
    assert (FOLDER / name).read_bytes() == (SOURCES / "page" / name).read_bytes()


def test_the_lock_of_the_client_names_hashes_and_no_addresses() -> None:
    lock = (SOURCES / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert "://" not in lock
    assert lock.count('"integrity": "sha512-') > 3
