"""A provider of OpenID Connect on loopback, as small as one can be and as strict as one should be: discovery, keys, the code flow.

It signs in whoever it is told to, at once. Tests spoil what it says by `spoil`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

CLIENT, SECRET = "console", "not-so:secret/at all"


def _key() -> RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(slots=True)
class Provider:
    """`who`: the claims of whoever signs in. `spoil`: what is done to the token before it is given: (claims, provider) → token.
    `asked`: what the browser was sent with. `codes`: given, not redeemed yet."""

    issuer: str = ""
    who: dict[str, Any] = field(
        default_factory=lambda: {"sub": "248289761001", "email": "ada@example.com", "email_verified": True}
    )
    key: RSAPrivateKey = field(default_factory=_key)
    kid: str = "one"
    spoil: Callable[[dict[str, Any], Provider], str] | None = None
    asked: dict[str, str] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def sign(
        self, claims: dict[str, Any], *, key: Any = None, algorithm: str = "RS256", **headers: Any
    ) -> str:
        return jwt.encode(claims, key or self.key, algorithm, headers={"kid": self.kid} | headers)

    def grant(self, url: str) -> str:
        """What a browser does that follows the redirect to the provider: the address that it is sent back to."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert asked["response_type"] == "code" and asked["client_id"] == CLIENT, asked
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split(), asked
        self.asked = asked
        code = os.urandom(16).hex()
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?code={code}&state={asked['state']}"

    # ----------------------------------------------------------------------------------------------------------------

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: str
    ) -> tuple[int, dict[str, Any]]:
        self.requests.append(path)
        if path == "/.well-known/openid-configuration":
            names = ("authorization", "token")
            return 200, {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/keys",
                **{f"{name}_endpoint": f"{self.issuer}/{name}" for name in names},
            }
        if path == "/keys":
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
            return 200, {"keys": [public | {"kid": self.kid, "use": "sig", "alg": "RS256"}]}
        if method == "POST" and path == "/token":
            return self._token(headers, {k: v[0] for k, v in parse_qs(body).items()})
        return 404, {}

    def _token(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        from urllib.parse import quote

        basic = base64.b64encode(f"{quote(CLIENT, safe='')}:{quote(SECRET, safe='')}".encode()).decode()
        if headers.get("authorization") != f"Basic {basic}":
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or form.get("redirect_uri") != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.who,
        }
        token = self.spoil(claims, self) if self.spoil is not None else self.sign(claims)
        return 200, {"access_token": "at", "token_type": "Bearer", "id_token": token}


def other_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    served = Provider()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        status, answer = served.answer(method, path, headers, body)
        text = json.dumps(answer).encode()
        start = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        writer.write(start.encode() + text)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    served.issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield served
