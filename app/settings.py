"""What an instance of the control plane is told by its environment, checked once, at the start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class SettingsError(Exception):
    """A setting that cannot be used; the text says which and how to write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`redis_urls`: region → URL. `uplink_urls`: how edges reach the instances, tried in order. `operator_key`: the
    platform's own key (`vx_op_…`). `local_targets`: test projects may name backends and webhooks on loopback, over `ws://` and `http://`.
    `lost_after_s`: so long a call without its caller or its edge waits before its edges are asked whether it is over.
    `deliveries`: whether this instance sends webhooks; one that does not leaves them to the others.
    `networks_kept_days`: for so long what was learned of a network's round trips is kept. `geo_files`: the operator's files in
    MaxMind's format, with autonomous systems, cities, or both.
    `egress_proxy`: an HTTP proxy through which webhooks leave (``http://host:port``); addresses are filtered before it too."""

    database_url: str
    database_urls: dict[str, str] = field(default_factory=dict)
    redis_urls: dict[str, str] = field(default_factory=dict)
    cell: int = 0
    host: str = "127.0.0.1"
    port: int = 8080
    uplink_urls: tuple[str, ...] = ()
    data: Path = Path("/var/lib/voxplane")
    operator_key: str = ""
    local_targets: bool = False
    log_format: str = "json"
    attach_within_s: int = 120
    lost_after_s: int = 45
    deliveries: bool = True
    egress_proxy: str = ""
    networks_kept_days: int = 30
    geo_files: tuple[Path, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Reads `DATABASE_URL`, `DATABASE_URL_<ROLE>`, `REDIS_URLS` (``us-east=redis://…,…``) and `VOXPLANE_*`."""
        env = os.environ if env is None else env
        url = env.get("DATABASE_URL", "")
        if not url.startswith(("postgresql://", "postgres://")):
            raise SettingsError(
                "set DATABASE_URL to postgresql://user:password@host:port/database, or use `voxplane up`"
            )
        roles = ("api", "keys", "append", "worker", "admin")
        return cls(
            database_url=url,
            database_urls={r: env[k] for r in roles if (k := f"DATABASE_URL_{r.upper()}") in env},
            redis_urls=_redis_urls(env.get("REDIS_URLS", "")),
            cell=_number(env, "VOXPLANE_CELL", 0, 0, 4095),
            host=env.get("VOXPLANE_HOST", "127.0.0.1"),
            port=_number(env, "VOXPLANE_PORT", 8080, 0, 65535),
            uplink_urls=tuple(
                u.strip().rstrip("/") for u in env.get("VOXPLANE_UPLINK_URLS", "").split(",") if u.strip()
            ),
            data=data_folder(env),
            operator_key=env.get("VOXPLANE_OPERATOR_KEY", ""),
            local_targets=env.get("VOXPLANE_ALLOW_LOCAL_TARGETS", "") == "1",
            log_format=env.get("VOXPLANE_LOG_FORMAT", "json"),
            attach_within_s=_number(env, "VOXPLANE_ATTACH_WITHIN_S", 120, 1, 900),
            deliveries=_switch(env, "VOXPLANE_DELIVERIES", default=True),
            egress_proxy=_proxy(env.get("VOXPLANE_EGRESS_PROXY", "")),
            networks_kept_days=_number(env, "VOXPLANE_NETWORKS_KEPT_DAYS", 30, 1, 365),
            geo_files=tuple(Path(p) for p in env.get("VOXPLANE_GEO_FILES", "").split(os.pathsep) if p),
            lost_after_s=_number(env, "VOXPLANE_LOST_AFTER_S", 45, 1, 3600),
        )


def data_folder(env: Mapping[str, str]) -> Path:
    """`VOXPLANE_DATA`, else `$XDG_STATE_HOME/voxplane`, else ``/var/lib/voxplane`` for root."""
    if given := env.get("VOXPLANE_DATA"):
        return Path(given)
    if os.geteuid() == 0 and not env.get("XDG_STATE_HOME"):
        return Path("/var/lib/voxplane")
    return Path(env.get("XDG_STATE_HOME") or Path(env.get("HOME", "/")) / ".local" / "state") / "voxplane"


def _number(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise SettingsError(f"{name} must be a whole number from {low} to {high}")
    return int(text)


def _switch(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name, "")
    if text not in ("", "0", "1"):
        raise SettingsError(f"{name} must be 0 or 1")
    return default if not text else text == "1"


def _proxy(text: str) -> str:
    if text and not text.startswith("http://"):
        raise SettingsError("VOXPLANE_EGRESS_PROXY is a URL like http://proxy.internal:3128")
    return text


def _redis_urls(text: str) -> dict[str, str]:
    urls: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        region, sep, url = part.partition("=")
        if not sep or not url.startswith(("redis://", "rediss://")):
            raise SettingsError(
                "REDIS_URLS is a list like us-east=redis://host:6379,eu-west=redis://host:6380"
            )
        urls[region.strip()] = url.strip()
    return urls
