"""A provider of OpenID Connect: found by its discovery document, asked by the authorization code flow with PKCE.

Decides what an ID token has to be (OpenID Connect Core 3.1.3.7, RFC 8725): signed with an asymmetric algorithm by a key of the
provider, for us, now, with the nonce of this sign-in. Leaves whose account it is to `sign_in`.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import quote, urlencode, urlsplit

import httpx
import jwt
import structlog
from jwt.exceptions import PyJWTError

from app.errors import Forbidden, Unavailable
from app.people.policy import challenge_of
from app.people.settings import SignInSettings
from app.people.store import Flow

log = structlog.get_logger()

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
WITHIN_S = 10.0
KNOWN_S = 3_600.0
KEYS_AGAIN_S = 30.0
ANSWER_BYTES_MAX = 256 * 1024
LEEWAY_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """`email`: None where the provider does not say that it is verified."""

    issuer: str
    subject: str
    email: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Provider:
    authorize: str
    token: str
    jwks: str
    basic: bool
    read_s: float


class Oidc:
    def __init__(self, settings: SignInSettings) -> None:
        self._settings = settings
        self._provider: _Provider | None = None
        self._keys: dict[str, jwt.PyJWK] = {}
        self._keys_s = -KNOWN_S
        self._one_at_a_time = asyncio.Lock()

    async def authorize_url(self, *, redirect_uri: str, state: str, flow: Flow) -> str:
        """Where the browser is sent. Raises `Unavailable` where the provider does not answer."""
        provider = await self._discovered()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid email profile",
            "state": state,
            "nonce": flow.nonce,
            "code_challenge": challenge_of(flow.verifier),
            "code_challenge_method": "S256",
        }
        return provider.authorize + ("&" if "?" in provider.authorize else "?") + urlencode(asked)

    async def vouch(self, *, code: str, redirect_uri: str, flow: Flow) -> Vouched:
        """Raises `Forbidden` where the provider refuses the code or its token does not hold, `Unavailable` where it is away."""
        provider = await self._discovered()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": flow.verifier,
        }
        auth = None
        if self._settings.client_secret and provider.basic:
            auth = (quote(self._settings.client_id, safe=""), quote(self._settings.client_secret, safe=""))
        else:
            form["client_id"] = self._settings.client_id
            if self._settings.client_secret:
                form["client_secret"] = self._settings.client_secret
        answer = await self._ask("POST", provider.token, data=form, auth=auth)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _refused("the provider gave no ID token")
        return self._read(token, await self._key_of(token, provider), flow.nonce)

    def _read(self, token: str, key: jwt.PyJWK, nonce: str) -> Vouched:
        settings = self._settings
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else [],
                audience=settings.client_id,
                issuer=settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (PyJWTError, ValueError, TypeError) as error:
            raise _refused(f"its token does not hold ({type(error).__name__})") from None
        given = claims.get("nonce")
        if not _is_text(given) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise _refused("its token is of another sign-in")
        audience = claims["aud"]
        azp = claims.get("azp")
        if (isinstance(audience, list) and len(audience) > 1 and azp is None) or azp not in (
            None,
            settings.client_id,
        ):
            raise _refused("its token is for somebody else")
        subject, email = claims["sub"], claims.get("email")
        if not _is_text(subject) or not 0 < len(subject) <= 255 or "\0" in subject:
            raise _refused("its token names nobody")
        verified = claims.get("email_verified") is True and _is_text(email)
        return Vouched(issuer=settings.issuer, subject=subject, email=email if verified else None)

    async def _key_of(self, token: str, provider: _Provider) -> jwt.PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, ValueError, RecursionError) as error:
            raise _refused(f"its token cannot be read ({type(error).__name__})") from None
        if header.get("alg") not in ALGORITHMS:
            raise _refused("its token is signed by an algorithm that is not taken")
        kid = header.get("kid")
        async with self._turn():
            known_s = time.monotonic() - self._keys_s
            # a key that the provider has withdrawn goes too, although whoever stole it asks for no other
            if known_s >= KNOWN_S or (known_s >= KEYS_AGAIN_S and self._pick(kid, header["alg"]) is None):
                await self._read_keys(provider)
        key = self._pick(kid, header["alg"])
        if key is None:
            raise _refused("its token is signed with a key that it does not publish")
        return key

    def _pick(self, kid: object, algorithm: str) -> jwt.PyJWK | None:
        """Without a kid: the only key there is for this algorithm."""
        if isinstance(kid, str):
            found = self._keys.get(kid)
            return found if found is not None and found.algorithm_name == algorithm else None
        fitting = [k for k in self._keys.values() if k.algorithm_name == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _read_keys(self, provider: _Provider) -> None:
        published = (await self._ask("GET", provider.jwks)).get("keys")
        keys: dict[str, jwt.PyJWK] = {}
        for number, entry in enumerate(published if isinstance(published, list) else []):
            if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
                continue
            try:
                key = jwt.PyJWK(entry)
            except (PyJWTError, ValueError, TypeError, KeyError):
                continue
            keys[str(entry.get("kid", f"#{number}"))] = key
        self._keys, self._keys_s = keys, time.monotonic()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One asks, the others wait for what it learns, for so long as an answer may take: else each of a provider's that hangs would
        wait for all before it."""
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._one_at_a_time.acquire()
        except TimeoutError:
            raise _away("others are waiting for it") from None
        try:
            yield
        finally:
            self._one_at_a_time.release()

    async def _discovered(self) -> _Provider:
        async with self._turn():
            known = self._provider
            if known is not None and time.monotonic() - known.read_s < KNOWN_S:
                return known
            base = self._settings.issuer.rstrip("/")
            found = await self._ask("GET", f"{base}/.well-known/openid-configuration")
            if found.get("issuer") != self._settings.issuer:
                raise _away(
                    "its discovery document is of another issuer: VOXPLANE_OIDC_ISSUER has to be exactly it"
                )
            ways = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            self._provider = _Provider(
                authorize=_endpoint(found, "authorization_endpoint"),
                token=_endpoint(found, "token_endpoint"),
                jwks=_endpoint(found, "jwks_uri"),
                basic="client_secret_basic" in ways if isinstance(ways, list) else True,
                read_s=time.monotonic(),
            )
            return self._provider

    async def _ask(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        """The provider's JSON. A code that it refuses is the browser's fault, everything else its own."""
        try:
            async with (
                asyncio.timeout(WITHIN_S),
                httpx.AsyncClient(timeout=WITHIN_S) as client,
                client.stream(method, url, headers={"accept": "application/json"}, **more) as answer,
            ):
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > ANSWER_BYTES_MAX:
                        raise _away("it answers too much")
                if method == "POST" and answer.status_code in (400, 401, 403):
                    raise _refused(f"it refuses the code ({answer.status_code})")
                if answer.status_code != 200:
                    raise _away(f"it answers {answer.status_code}")
            found = httpx.Response(200, content=bytes(body)).json()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise _away(type(error).__name__) from None
        except (ValueError, RecursionError):
            raise _away("its answer is not JSON") from None
        if not isinstance(found, dict):
            raise _away("its answer is no object")
        return found


def _endpoint(document: dict[str, Any], name: str) -> str:
    url = document.get(name)
    try:
        parsed = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parsed = None
    near = parsed is not None and parsed.hostname in ("localhost", "127.0.0.1", "::1")
    if parsed is None or parsed.scheme not in (("https", "http") if near else ("https",)):
        raise _away(f"its discovery document has no usable {name}")
    return str(url)


def _is_text(value: object) -> TypeGuard[str]:
    """JSON can say half of a surrogate pair, which neither a comparison of bytes nor the database takes."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _refused(why: str) -> Forbidden:
    log.info("sign_in.not_vouched", why=why)
    return Forbidden(
        f"The provider did not vouch for you: {why}.", code="sign_in_refused", fix="Sign in again."
    )


def _away(why: str) -> Unavailable:
    log.warning("sign_in.provider_away", why=why)
    return Unavailable(f"The provider cannot be used at the moment: {why}.", retry_after_s=5)
