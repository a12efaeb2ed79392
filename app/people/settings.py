"""How people may sign in, as the environment says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from app.cells.settings import SettingsError

PROVIDER_NAME = "your company's account"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInSettings:
    """`console_url`: where people reach the console, such as ``https://voice.example.com``; empty: as they ask for it. `issuer`: of
    OpenID Connect; empty: none. `passwords`: whether local accounts may sign in with one."""

    console_url: str = ""
    issuer: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    provider_name: str = PROVIDER_NAME
    passwords: bool = True

    @property
    def oidc(self) -> bool:
        return bool(self.issuer)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> SignInSettings:
        issuer = env.get("VOXPLANE_OIDC_ISSUER", "").strip()
        client_id = env.get("VOXPLANE_OIDC_CLIENT_ID", "").strip()
        if bool(issuer) != bool(client_id):
            raise SettingsError("set VOXPLANE_OIDC_ISSUER and VOXPLANE_OIDC_CLIENT_ID together, or neither")
        passwords = env.get("VOXPLANE_LOCAL_ACCOUNTS", "")
        if passwords not in ("", "0", "1"):
            raise SettingsError("VOXPLANE_LOCAL_ACCOUNTS must be 0 or 1")
        console_url = _url(env, "VOXPLANE_CONSOLE_URL")
        if issuer:
            _checked("VOXPLANE_OIDC_ISSUER", issuer)
        return cls(
            console_url=console_url,
            issuer=issuer,
            client_id=client_id,
            client_secret=_secret(env),
            provider_name=env.get("VOXPLANE_OIDC_NAME", "").strip() or PROVIDER_NAME,
            passwords=passwords == "1" if passwords else not issuer,
        )


def _url(env: Mapping[str, str], name: str) -> str:
    text = env.get(name, "").strip().rstrip("/")
    if text:
        parsed = _checked(name, text)
        if parsed.path or parsed.query or parsed.fragment:
            raise SettingsError(f"{name} is scheme and host, such as https://voice.example.com")
    return text


def _checked(name: str, text: str) -> SplitResult:
    try:
        parsed = urlsplit(text)
    except ValueError:
        raise SettingsError(f"{name} is a URL like https://login.example.com") from None
    near = parsed.hostname in ("localhost", "127.0.0.1", "::1")
    if parsed.scheme not in (("http", "https") if near else ("https",)) or not parsed.hostname:
        raise SettingsError(f"{name} is an https:// URL (http:// on loopback only)")
    return parsed


def _secret(env: Mapping[str, str]) -> str:
    path, given = env.get("VOXPLANE_OIDC_CLIENT_SECRET_FILE", ""), env.get("VOXPLANE_OIDC_CLIENT_SECRET", "")
    if not path:
        return given
    if given:
        raise SettingsError("set VOXPLANE_OIDC_CLIENT_SECRET or …_FILE, not both")
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(
            f"VOXPLANE_OIDC_CLIENT_SECRET_FILE cannot be read: {type(error).__name__}"
        ) from None
