"""Tokens as a forger makes them: by hand, because libraries refuse to."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from regions.wire.ticket import b64, unb64

Sign = Callable[[bytes], bytes]
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


def token(header: Any, claims: Any, sign: Sign) -> str:
    """Both as they are given, or as JSON."""
    head, body = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    signed = f"{b64(head.encode())}.{b64(body.encode())}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def parts(genuine: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, body, _ = genuine.split(".")
    return json.loads(unb64(head)), json.loads(unb64(body))


def jwk(key: Ed25519PublicKey) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(raw(key))}


def raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def forged(genuine: str, public: Ed25519PublicKey) -> dict[str, str]:
    """What can be made of a genuine token by who has no key of ours: `public` is known to everybody."""
    header, claims = parts(genuine)
    head, body, signature = genuine.split(".")
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def mac(secret: bytes) -> Sign:
        return lambda data: hmac.digest(secret, data, sha256)

    theirs = STRANGER.sign
    more = {
        "jwk": jwk(STRANGER.public_key()),
        "jku": "http://127.0.0.1:9/jwks",
        "x5u": "http://127.0.0.1:9/x",
    }
    made = {
        "alg none": token(header | {"alg": "none"}, claims, lambda _: b""),
        "alg None": token(header | {"alg": "None"}, claims, lambda _: b""),
        "alg nOnE, signature kept": token(header | {"alg": "nOnE"}, claims, lambda _: unb64(signature)),
        "no alg": token({k: v for k, v in header.items() if k != "alg"}, claims, theirs),
        "alg null": token(header | {"alg": None}, claims, theirs),
        "alg a list": token(header | {"alg": ["EdDSA"]}, claims, theirs),
        "HS256 with the raw public key": token(header | {"alg": "HS256"}, claims, mac(raw(public))),
        "HS256 with the key in base64url": token(
            header | {"alg": "HS256"}, claims, mac(b64(raw(public)).encode())
        ),
        "HS256 with the key as PEM": token(header | {"alg": "HS256"}, claims, mac(pem)),
        "HS256 with nothing": token(header | {"alg": "HS256"}, claims, mac(b"")),
        "HS512 with the raw public key": token(header | {"alg": "HS512"}, claims, mac(raw(public))),
        "EdDSA over a MAC": token(header, claims, mac(raw(public))),
        "another's signature": token(header, claims, theirs),
        "RS256": token(header | {"alg": "RS256"}, claims, theirs),
        "ES256": token(header | {"alg": "ES256"}, claims, theirs),
        "Ed25519": token(header | {"alg": "Ed25519"}, claims, theirs),
        "a key in the header": token(header | {"jwk": more["jwk"]}, claims, theirs),
        "a link to a key": token(header | {"jku": more["jku"]}, claims, theirs),
        "a link to a certificate": token(header | {"x5u": more["x5u"]}, claims, theirs),
        "all ways to a key": token(header | more, claims, theirs),
        "crit": token(header | {"crit": ["exp"]}, claims, theirs),
        "b64 false": token(header | {"b64": False, "crit": ["b64"]}, claims, theirs),
        "no signature": f"{head}.{body}.",
        "no signature and no dot": f"{head}.{body}",
        "no body": f"{head}..{signature}",
        "no header": f".{body}.{signature}",
        "nothing but dots": "..",
        "four parts": f"{genuine}.{signature}",
        "five parts": f"{head}.{body}.{signature}.{body}.{signature}",
        "another header": f"{b64(json.dumps(header | {'x': 1}).encode())}.{body}.{signature}",
        "another body": f"{head}.{b64(json.dumps(claims | {'x': 1}).encode())}.{signature}",
        "the signature twice": f"{head}.{body}.{signature}{signature}",
        "half a signature": f"{head}.{body}.{signature[:40]}",
        "parts in another order": f"{body}.{head}.{signature}",
        "over-long": f"{head}.{body}.{'A' * 9_000}",
        "an over-long header": token(header | {"x": "y" * 5_000}, claims, theirs),
        "a header that is a list": token([header], claims, theirs),
        "a header that is no JSON": token("{", claims, theirs),
        "a header as deep as can be": token('{"a":' + "[" * 1_400 + "]" * 1_400 + "}", claims, theirs),
        "a header with NaN": token('{"alg":NaN,"typ":NaN}', claims, theirs),
        "a header that is not UTF-8": f"{b64(bytes([0xFF, 0xFE]))}.{body}.{signature}",
    }
    for name, kid in {
        "no kid": None,
        "kid a path": "../../../../dev/null",
        "kid a file": "/proc/sys/kernel/random/boot_id",
        "kid a statement": "x' or '1'='1",
        "kid a URL": "http://127.0.0.1:9/key",
        "kid NUL": "sig_\u0000",
        "kid unicode": "s\u0456g_\u202e",
        "kid a list": ["sig"],
        "kid a number": 0,
        "kid over-long": "k" * 900,
    }.items():
        made[name] = token(header | {"kid": kid} | {"jwk": more["jwk"]}, claims, theirs)
    return made


def misused(header: dict[str, Any], claims: dict[str, Any], sign: Sign, now_s: int) -> dict[str, str]:
    """What its rightful signer may not say either."""
    changed: dict[str, tuple[dict[str, Any], Any]] = {
        "typ of another kind": (header | {"typ": "JWT"}, claims),
        "typ in capitals": (header | {"typ": str(header["typ"]).upper()}, claims),
        "typ a list": (header | {"typ": [header["typ"]]}, claims),
        "no typ": ({k: v for k, v in header.items() if k != "typ"}, claims),
        "crit": (header | {"crit": ["nobody-knows"]}, claims),
        "another aud": (header, claims | {"aud": "voxplane.nowhere"}),
        "aud a list of others": (header, claims | {"aud": ["a", "b"]}),
        "aud a number": (header, claims | {"aud": 7}),
        "expired": (header, claims | {"iat": now_s - 3_700, "exp": now_s - 3_600}),
        "from the future": (header, claims | {"iat": now_s + 3_600, "exp": now_s + 3_630}),
        "not yet": (header, claims | {"nbf": now_s + 3_600}),
        "for a year": (header, claims | {"exp": now_s + 31_536_000}),
        "for ever": (header, claims | {"exp": 10**400}),
        "made at the end of time": (header, claims | {"iat": 10**400, "exp": 10**400}),
        "before all time": (header, claims | {"iat": -(10**400), "exp": -(10**400)}),
        "exp a word": (header, claims | {"exp": "tomorrow"}),
        "exp a fraction": (header, claims | {"exp": now_s + 0.5}),
        "exp true": (header, claims | {"exp": True}),
        "jti a list": (header, claims | {"jti": ["a"]}),
        "jti a number": (header, claims | {"jti": 7}),
        "claims a list": (header, [claims]),
        "claims a word": (header, '"x"'),
        "claims null": (header, "null"),
        "claims no JSON": (header, "{"),
        "claims empty": (header, ""),
        "exp NaN": (header, json.dumps(claims | {"exp": float("nan")})),
        "exp without end": (header, json.dumps(claims | {"exp": float("inf")})),
        "claims as deep as can be": (header, '{"a":' + "[" * 1_200 + "]" * 1_200 + "}"),
        "a claim twice, the last wrong": (header, json.dumps(claims)[:-1] + ', "aud": "x"}'),
    }
    for name in ("aud", "exp", "iat", "jti"):
        changed[f"no {name}"] = (header, {k: v for k, v in claims.items() if k != name})
        changed[f"{name} null"] = (header, claims | {name: None})
    return {name: token(head, body, sign) for name, (head, body) in changed.items()}
