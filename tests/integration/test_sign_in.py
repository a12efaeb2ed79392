"""How people get in, and how they are put out again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import jwt
import pytest
import pytest_asyncio

from app.people.policy import return_to
from app.people.settings import SignInSettings
from tests.support.api import Api, Project, serving
from tests.support.oidc import CLIENT, SECRET, Provider, other_key, provider
from tests.support.people import PASSWORD, Browser, account, browser, link, signed_in

SESSION = "vx_session"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_identity() -> AsyncIterator[Provider]:
    async with provider() as served:
        yield served


@pytest.fixture
def identity(one_identity: Provider) -> Provider:
    one_identity.spoil = None
    return one_identity


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def with_provider(api: Api, one_identity: Provider) -> AsyncIterator[Api]:
    """Another instance over the same database, with a provider."""
    sign_in = SignInSettings(
        issuer=one_identity.issuer, client_id=CLIENT, client_secret=SECRET, passwords=False
    )
    async with serving(dataclasses.replace(api.settings, port=0, sign_in=sign_in)) as served:
        yield served


async def run(api: Api, sql: str, *values: Any) -> Any:
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        return await connection.fetch(sql, *values)
    finally:
        await connection.close()


async def gets_in(came: Browser) -> bool:
    answer = await came.get("/console", follow_redirects=True)
    return "Sign out" in answer.text


# ------------------------------------------------------------------------------------------------------ links, passwords


async def test_a_password_is_set_by_a_link_once_and_signs_in(api: Api, project: Project) -> None:
    person = await account(api, "ada@pw.example", {project.id: "viewer"})
    secret, came = await link(api, person, "password"), await browser(api)

    for bad in ("short", "ada@pw.exampleada@pw", "aaaaaaaaaaaaaaaa"):
        refused = await came.post("/console/sign-in/password", {"secret": secret, "password": bad})
        assert refused.status_code == 422 and "password" in refused.text
    taken = await came.post("/console/sign-in/password", {"secret": secret, "password": PASSWORD})
    again = await came.post("/console/sign-in/password", {"secret": secret, "password": PASSWORD + "!"})

    assert (taken.status_code, again.status_code) == (303, 403)
    assert "voxplane console prints another one" in again.text
    kept = taken.headers["set-cookie"]
    assert "HttpOnly" in kept and "SameSite=Lax" in kept and "Path=/" in kept
    assert await gets_in(came)
    other = await browser(api)
    wrong = await other.post(
        "/console/sign-in", {"email": "ada@pw.example", "password": "not this one either"}
    )
    nobody = await other.post("/console/sign-in", {"email": "nobody@pw.example", "password": PASSWORD})
    right = await other.post(
        "/console/sign-in",
        {"email": " Ada@PW.example ", "password": PASSWORD, "next": f"/console/p/{project.id}/map?a=1"},
    )
    assert (wrong.status_code, nobody.status_code, right.status_code) == (403, 403, 303)
    assert "not right" in wrong.text and "not right" in nobody.text
    assert right.headers["location"] == f"/console/p/{project.id}/map?a=1"


async def test_the_page_says_how_to_get_in_where_nobody_has_an_account_yet(api: Api) -> None:
    near = await (await browser(api)).get("/console/sign-in")
    client = await api.client()
    far = await client.get(f"{api.url}/console/sign-in", headers={"Host": "voice.example.com"})
    assert "voxplane people create" in near.text and "voxplane console" in near.text
    assert "voxplane console" not in far.text


async def test_an_account_has_no_password_until_one_is_set(api: Api) -> None:
    await account(api, "bare@pw.example")
    came = await browser(api)
    for password in ("", "None", "password", "null"):
        answer = await came.post("/console/sign-in", {"email": "bare@pw.example", "password": password})
        assert answer.status_code == 403


async def test_a_link_signs_in_once_and_not_late(api: Api) -> None:
    person = await account(api, "link@pw.example")
    first, late = await link(api, person, "sign_in"), await link(api, person, "sign_in")
    await run(
        api,
        "update vx.sign_in_links set expires_at = now() - interval '1 s' where secret_hash = sha256($1)",
        late.encode(),
    )
    came = await browser(api)

    assert (await came.get("/console/sign-in/link")).status_code == 200, "looking at it uses nothing up"
    for secret, status in ((late, 403), (first, 303), (first, 403), ("", 403), ("x" * 500, 403)):
        answer = await came.post("/console/sign-in/link", {"secret": secret})
        assert answer.status_code == status
    wrong_kind = await link(api, person, "password")
    assert (await came.post("/console/sign-in/link", {"secret": wrong_kind})).status_code == 403


async def test_a_new_password_ends_every_session_and_every_link(api: Api, project: Project) -> None:
    person = await account(api, "taken@links.example")
    thief, owner = await browser(api), await browser(api)
    assert (
        await thief.post("/console/sign-in/link", {"secret": await link(api, person, "sign_in")})
    ).status_code == 303
    kept = [await link(api, person, "sign_in"), await link(api, person, "password")]
    fields = {"secret": await link(api, person, "password"), "password": PASSWORD}
    assert (await owner.post("/console/sign-in/password", fields)).status_code == 303

    assert (await thief.get("/console")).headers["location"].startswith("/console/sign-in")
    assert (await thief.post("/console/sign-in/link", {"secret": kept[0]})).status_code == 403
    fields = {"secret": kept[1], "password": PASSWORD}
    assert (await thief.post("/console/sign-in/password", fields)).status_code == 403


async def test_too_many_tries_wait_whoever_is_right(api: Api, project: Project) -> None:
    person = await account(api, "tries@pw.example")
    came = await browser(api)
    await came.post(
        "/console/sign-in/password", {"secret": await link(api, person, "password"), "password": PASSWORD}
    )
    fields = {"email": "tries@pw.example", "password": "wrong wrong wrong"}
    # an account from one address: ten; the tests before have not used up those of the address
    await run(api, "delete from vx.sign_in_tries")
    codes = [(await came.post("/console/sign-in", fields)).status_code for _ in range(11)]
    right = await came.post("/console/sign-in", fields | {"password": PASSWORD})

    assert codes == [403] * 10 + [429]
    assert right.status_code == 429 and "quarter of an hour" in right.text
    # and somebody who tries without end keeps nobody out who comes from elsewhere
    assert await api.control.door.sign_in.by_password("tries@pw.example", PASSWORD, "198.51.100.7")
    # as long as it says, and no shorter: the wait is that of the tenth try from the end
    assert right.headers["ratelimit-policy"] == '"sign-in";q=10;w=900'
    wait_s = int(right.headers["retry-after"])
    assert right.headers["ratelimit"] == f'"sign-in";r=0;t={wait_s}'
    assert 0 < wait_s <= 900
    await run(api, f"update vx.sign_in_tries set at = at - interval '{900 - 60} s'")
    again = await came.post("/console/sign-in", fields)
    assert (again.status_code, int(again.headers["retry-after"]) <= 60) == (429, True)
    await run(api, "update vx.sign_in_tries set at = at - interval '16 min'")
    assert (await came.post("/console/sign-in", fields | {"password": PASSWORD})).status_code == 303


# -------------------------------------------------------------------------------------------------------------- sessions


async def test_a_session_ends_where_it_should(api: Api, project: Project) -> None:
    one, person = await signed_in(api, "ends@pw.example", {project.id: "viewer"})
    two = await browser(api)
    await two.post("/console/sign-in/link", {"secret": await link(api, person, "sign_in")})
    secret = one.client.cookies[SESSION]

    assert (await one.send("/console/sign-out")).status_code == 303
    stale = await browser(api)
    stale.client.cookies.set(SESSION, secret)
    assert not await gets_in(stale), "the cookie of a session that was ended is worth nothing"
    assert await gets_in(two)
    await one.post("/console/sign-in/link", {"secret": await link(api, person, "sign_in")})
    assert (await one.send("/console/sign-out", {"everywhere": "1"})).status_code == 303
    assert not await gets_in(two)


async def test_signing_in_makes_a_new_session_of_the_one_before(api: Api) -> None:
    came, person = await signed_in(api, "rotates@pw.example")
    before = came.client.cookies[SESSION]
    await came.post("/console/sign-in/link", {"secret": await link(api, person, "sign_in")})

    assert came.client.cookies[SESSION] != before
    old = await browser(api)
    old.client.cookies.set(SESSION, before)
    assert not await gets_in(old)


@pytest.mark.parametrize("column", ["seen_at", "created_at"])
async def test_a_session_ends_by_itself(api: Api, column: str) -> None:
    came, _ = await signed_in(api, f"{column.replace('_', '')}@pw.example")
    aged = {
        "seen_at": "seen_at = seen_at - interval '13 h'",
        "created_at": "expires_at = expires_at - interval '8 days'",
    }
    await run(
        api,
        f"update vx.sessions set {aged[column]} where person_id = (select id from vx.people where email = $1)",
        f"{column.replace('_', '')}@pw.example",
    )

    answer = await came.get("/console/p/x/keys?a=b")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in?next=/console/p/x/keys%3Fa%3Db"
    part = await came.get("/console/p/x/keys", headers={"hx-request": "true"})
    assert part.status_code == 401 and part.headers["hx-redirect"].startswith("/console/sign-in")


async def test_who_is_removed_is_out_at_once_on_every_instance(api: Api, project: Project) -> None:
    came, person = await signed_in(api, "gone@pw.example", {project.id: "owner"})
    waiting = await link(api, person, "sign_in")
    async with serving(dataclasses.replace(api.settings, port=0)) as other:
        there = await browser(other)
        there.client.cookies.set(SESSION, came.client.cookies[SESSION])
        assert await gets_in(there)
        assert (await api.operator.delete(f"/admin/v1/people/{person}")).status_code == 204

        assert not await gets_in(there)
    assert not await gets_in(came)
    assert (await came.post("/console/sign-in/link", {"secret": waiting})).status_code == 403
    assert (await api.operator.get(f"/admin/v1/people/{person}")).status_code == 404


async def test_a_role_that_is_taken_away_is_gone_with_the_next_request(api: Api, project: Project) -> None:
    came, person = await signed_in(api, "less@pw.example", {project.id: "admin"})
    assert (await came.get(f"/console/p/{project.id}/keys")).status_code == 200
    await api.operator.put(f"/admin/v1/people/{person}/memberships/{project.id}", json={"role": "viewer"})
    assert (await came.get(f"/console/p/{project.id}/keys")).status_code == 403
    await api.operator.delete(f"/admin/v1/people/{person}/memberships/{project.id}")
    assert (await came.get(f"/console/p/{project.id}/keys")).status_code == 404


async def test_over_https_the_cookie_is_held_to_the_host(api: Api) -> None:
    sign_in = SignInSettings(console_url="https://console.example")
    async with serving(dataclasses.replace(api.settings, port=0, sign_in=sign_in)) as served:
        person = await account(served, "https@pw.example")
        came = Browser(await served.client(), "https://console.example")
        answer = await came.post("/console/sign-in/link", {"secret": await link(served, person, "sign_in")})

        assert answer.headers["set-cookie"].startswith("__Host-vx_session=")
        assert "; Secure" in answer.headers["set-cookie"] and "Domain" not in answer.headers["set-cookie"]


async def test_no_session_travels_in_clear(api: Api) -> None:
    came = await browser(api)
    answer = await came.get("/console/sign-in", headers={"host": "console.example"})
    assert answer.status_code == 403 and "HTTPS" in answer.text


@pytest.mark.parametrize("host", ["[", "[::1", "a]b", "localhost:99999999", "127.0.0.1:abc"])
async def test_a_host_that_is_none_is_a_bad_request(api: Api, host: str) -> None:
    came = await browser(api)
    for path in ("/console", "/console/sign-in", "/console/sign-in/provider", "/console/p/prj_x/calls"):
        answer = await came.get(path, headers={"host": host})
        assert answer.status_code == 400 and "Host" in answer.text, (path, answer.status_code)
    form = {"email": "a@b.example", "password": "x"}
    assert (await came.client.post("/console/sign-in", data=form, headers={"host": host})).status_code == 400


@pytest.mark.parametrize(
    "asked",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/console/../v1/keys", "javascript:alert(1)", "/v1/keys",
     "/console//evil.example", "/consoleevil", "/console/sign-out", "/console/x\n", "x" * 2000, None, ""],
)  # fmt: skip
def test_a_sign_in_leads_to_the_console_alone(asked: str | None) -> None:
    assert return_to(asked) == "/console"


# -------------------------------------------------------------------------------------------------------- OpenID Connect


async def at_provider(api: Api, came: Browser, wanted: str = "/console") -> str:
    """Where the provider is asked."""
    answer = await came.get("/console/sign-in/provider", params={"next": wanted})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def back(url: str) -> str:
    return "/console" + url.partition("/console")[2]


async def test_a_provider_vouches_for_an_account_that_was_made(
    with_provider: Api, identity: Provider, project: Project
) -> None:
    identity.who |= {"email": "Vouched@Example.com", "sub": "one"}
    await account(with_provider, "vouched@example.com", {project.id: "viewer"})
    came = await browser(with_provider)
    wanted = f"/console/p/{project.id}/map"

    url = identity.grant(await at_provider(with_provider, came, wanted))
    answer = await came.get(back(url))

    assert answer.status_code == 303 and answer.headers["location"] == wanted
    assert await gets_in(came)
    replayed = await came.get(back(url))
    assert replayed.status_code == 403, "state and code are good for once"
    # from now on the account is the subject's, whatever address it has
    identity.who = {"sub": "one", "email": "other@example.com", "email_verified": True}
    again = await browser(with_provider)
    assert (await again.get(back(identity.grant(await at_provider(with_provider, again))))).status_code == 303
    # and nobody else's, who has the address at the provider now
    identity.who = {"sub": "two", "email": "vouched@example.com", "email_verified": True}
    thief = await browser(with_provider)
    assert (await thief.get(back(identity.grant(await at_provider(with_provider, thief))))).status_code == 403


async def test_a_stranger_and_an_unverified_address_get_no_account(
    with_provider: Api, identity: Provider
) -> None:
    await account(with_provider, "unverified@example.com")
    for who in (
        {"sub": "s1", "email": "stranger@example.com", "email_verified": True},
        {"sub": "s2", "email": "unverified@example.com", "email_verified": False},
        {"sub": "s3", "email": "unverified@example.com"},
        {"sub": "s4", "email": "unverified@example.com", "email_verified": "true"},
        {"sub": "s5"},
    ):
        identity.who = who
        came = await browser(with_provider)
        answer = await came.get(back(identity.grant(await at_provider(with_provider, came))))
        assert answer.status_code == 403 and "no account" in answer.text


async def test_a_sign_in_is_bound_to_the_browser_that_began_it(
    with_provider: Api, identity: Provider
) -> None:
    await account(with_provider, "attacker@example.com")
    identity.who = {"sub": "attacker", "email": "attacker@example.com", "email_verified": True}
    victim, attacker = await browser(with_provider), await browser(with_provider)
    url = back(identity.grant(await at_provider(with_provider, attacker)))

    assert (await victim.get(url)).status_code == 403
    await at_provider(with_provider, victim)  # one of its own is under way
    assert (await victim.get(url)).status_code == 403
    assert (await attacker.get(url.replace("state=", "state=x"))).status_code == 403
    assert (await attacker.get(url)).status_code == 303, "nobody else has used it up"


def _alg_none(claims: dict[str, Any], at: Provider) -> str:
    return jwt.encode(claims, None, "none", headers={"kid": at.kid})


def _hmac_of_public_key(claims: dict[str, Any], at: Provider) -> str:
    """Algorithm confusion: the published key taken for a shared secret."""
    import base64
    import hashlib
    import hmac
    import json

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = at.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(value: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "kid": at.kid, "typ": "JWT"}) + b"." + part(claims)
    mac = base64.urlsafe_b64encode(hmac.digest(pem, signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + mac).decode()


SPOILT: dict[str, Any] = {
    "alg none": _alg_none,
    "algorithm confusion": _hmac_of_public_key,
    "another key": lambda c, at: at.sign(c, key=Provider().key),
    "another kind of key": lambda c, at: at.sign(c, key=other_key(), algorithm="ES256"),
    "an unknown kid": lambda c, at: at.sign(c, kid="nine"),
    "another issuer": lambda c, at: at.sign(c | {"iss": "https://evil.example"}),
    "another audience": lambda c, at: at.sign(c | {"aud": "somebody"}),
    "several audiences without azp": lambda c, at: at.sign(c | {"aud": [CLIENT, "somebody"]}),
    "authorised for another": lambda c, at: at.sign(c | {"azp": "somebody"}),
    "expired": lambda c, at: at.sign(c | {"exp": int(time.time()) - 120}),
    "issued in the future": lambda c, at: at.sign(c | {"iat": int(time.time()) + 3600}),
    "without an end": lambda c, at: at.sign({k: v for k, v in c.items() if k != "exp"}),
    "another nonce": lambda c, at: at.sign(c | {"nonce": "x"}),
    "no nonce": lambda c, at: at.sign({k: v for k, v in c.items() if k != "nonce"}),
    "nonce of another type": lambda c, at: at.sign(c | {"nonce": ["x"]}),
    "no subject": lambda c, at: at.sign({k: v for k, v in c.items() if k != "sub"}),
    "empty subject": lambda c, at: at.sign(c | {"sub": ""}),
    "cut": lambda c, at: at.sign(c)[:-9],
    "not a token": lambda c, at: "x.y.z",
}


@pytest.mark.parametrize("how", SPOILT)
async def test_a_token_that_does_not_hold_signs_nobody_in(
    with_provider: Api, identity: Provider, how: str
) -> None:
    email = f"{how.replace(' ', '')}@example.com"
    await account(with_provider, email)
    identity.who = {"sub": how, "email": email, "email_verified": True}
    came = await browser(with_provider)
    identity.spoil = SPOILT[how]
    answer = await came.get(back(identity.grant(await at_provider(with_provider, came))))

    assert answer.status_code == 403 and "vouch" in answer.text
    assert SESSION not in came.client.cookies
    identity.spoil = None
    assert (await came.get(back(identity.grant(await at_provider(with_provider, came))))).status_code == 303


async def test_a_provider_that_is_away_or_says_no(api: Api, with_provider: Api, identity: Provider) -> None:
    came = await browser(with_provider)
    url = identity.grant(await at_provider(with_provider, came))
    no = back(url).partition("?")[0] + f"?error=access_denied&state={identity.asked['state']}"
    answer = await came.get(no)
    assert answer.status_code == 403 and "said no" in answer.text
    # a password is not asked for where the provider is the way in
    assert (await came.post("/console/sign-in", {"email": "a@b.example", "password": "x"})).status_code == 404

    sign_in = SignInSettings(issuer="http://127.0.0.1:9", client_id=CLIENT)
    async with serving(dataclasses.replace(api.settings, port=0, sign_in=sign_in)) as lost:
        away = await (await browser(lost)).get("/console/sign-in/provider")
    assert away.status_code == 503 and away.headers["retry-after"]
