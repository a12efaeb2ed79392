"""A provider that hangs, fails for a moment, withdraws a key, or says what no JSON of a provider should."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from app.errors import Forbidden, Unavailable
from app.people import oidc
from app.people.oidc import Oidc
from app.people.settings import SignInSettings
from app.people.store import Flow
from tests.support.oidc import CLIENT, SECRET, Provider, provider

FLOW = Flow(nonce="n", verifier="v" * 43, return_to="/console")
BACK = "http://127.0.0.1/console/sign-in/provider/callback"


def of(identity: Provider) -> Oidc:
    return Oidc(SignInSettings(issuer=identity.issuer, client_id=CLIENT, client_secret=SECRET))


async def sign_in(at: Oidc, identity: Provider) -> str:
    url = await at.authorize_url(redirect_uri=BACK, state="s", flow=FLOW)
    code = identity.grant(url).partition("code=")[2].partition("&")[0]
    return (await at.vouch(code=code, redirect_uri=BACK, flow=FLOW)).subject


async def test_a_key_that_the_provider_withdraws_is_known_for_an_hour_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with provider() as identity:
        at = of(identity)
        assert await sign_in(at, identity)
        stolen = identity.key
        identity.key, identity.kid = Provider().key, "two"
        identity.spoil = lambda claims, who: who.sign(claims, key=stolen, kid="one")
        later = time.monotonic() + oidc.KNOWN_S + 1
        monkeypatch.setattr(oidc.time, "monotonic", lambda: later)
        with pytest.raises(Forbidden, match="does not publish"):
            await sign_in(at, identity)


async def test_keys_that_could_not_be_read_once_bar_nobody_for_half_a_minute() -> None:
    async with provider() as identity:
        at = of(identity)
        answer = Provider.answer

        def failing(self: Provider, method: str, path: str, *rest: Any) -> tuple[int, dict[str, Any]]:
            return (503, {}) if path == "/keys" else answer(self, method, path, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Provider, "answer", failing)
            with pytest.raises(Unavailable, match="503"):
                await sign_in(at, identity)
        assert await sign_in(at, identity), "the provider is well again"


async def test_a_provider_that_hangs_holds_nobody_for_longer_than_two_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oidc, "WITHIN_S", 0.3)
    hangs = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    at = Oidc(
        SignInSettings(
            issuer=f"http://127.0.0.1:{hangs.sockets[0].getsockname()[1]}",
            client_id=CLIENT,
            client_secret=SECRET,
        )
    )
    began_s = time.monotonic()
    came = await asyncio.gather(
        *(at.authorize_url(redirect_uri=BACK, state="s", flow=FLOW) for _ in range(10)),
        return_exceptions=True,
    )
    hangs.close()
    assert all(isinstance(one, Unavailable) for one in came), came
    assert time.monotonic() - began_s < 1.5


ODD: dict[str, dict[str, Any]] = {
    "half a character as the nonce": {"nonce": "\ud800"},
    "half a character as the subject": {"sub": "\udfff"},
}


@pytest.mark.parametrize("how", ODD)
async def test_what_cannot_be_is_refused(how: str) -> None:
    async with provider() as identity:
        identity.spoil = lambda claims, who: who.sign(claims | ODD[how])
        with pytest.raises(Forbidden):
            await sign_in(of(identity), identity)


async def test_half_a_character_in_the_address_is_no_address() -> None:
    async with provider() as identity:
        identity.who["email"] = "\ud800@example.com"
        at = of(identity)
        url = await at.authorize_url(redirect_uri=BACK, state="s", flow=FLOW)
        code = identity.grant(url).partition("code=")[2].partition("&")[0]
        assert (await at.vouch(code=code, redirect_uri=BACK, flow=FLOW)).email is None


@pytest.mark.parametrize("field", ["jwks_uri", "token_endpoint", "authorization_endpoint"])
async def test_an_endpoint_that_is_no_address_is_the_providers_fault(
    monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    answer = Provider.answer

    def bad(self: Provider, method: str, path: str, *rest: Any) -> tuple[int, dict[str, Any]]:
        status, found = answer(self, method, path, *rest)
        return status, found | {field: "https://[::1"} if "issuer" in found else found

    monkeypatch.setattr(Provider, "answer", bad)
    async with provider() as identity:
        with pytest.raises(Unavailable, match=field):
            await of(identity).authorize_url(redirect_uri=BACK, state="s", flow=FLOW)


async def test_nesting_without_end_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n" + b"[" * 200_000)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        with pytest.raises(Unavailable, match="not JSON"):
            await Oidc(SignInSettings(issuer=issuer, client_id=CLIENT)).authorize_url(
                redirect_uri=BACK, state="s", flow=FLOW
            )
