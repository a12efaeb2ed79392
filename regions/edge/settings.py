"""What an edge is told by its environment, checked once, at the start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from regions.edge.peer import Networks


class SettingsError(Exception):
    """A setting that cannot be used; the text says which and how to write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """`control_urls`: the instances, tried in order. `enrol_token`: needed the first time. `public_*`: how callers reach the
    listeners, where that differs from where they are bound. `uplink_urls`: instead of what the control plane says. `data`: the
    edge's key and the keys it was given. `drain_s`: so long its calls may take to move when it is told to stop. `trusted_proxies`:
    those in front of the listeners, whose ``X-Forwarded-For`` is believed."""

    region: str
    name: str
    control_urls: tuple[str, ...]
    data: Path
    uplink_urls: tuple[str, ...] = ()
    enrol_token: str = ""
    media_host: str = "127.0.0.1"
    media_port: int = 0
    http_host: str = "127.0.0.1"
    http_port: int = 0
    public_media_url: str = ""
    public_http_url: str = ""
    capacity_calls: int = 50
    drain_s: int = 30
    redis_url: str = ""
    trusted_proxies: Networks = ()
    local_targets: bool = False
    log_format: str = "json"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> EdgeSettings:
        env = os.environ if env is None else env
        region, name = env.get("VOXPLANE_REGION", ""), env.get("VOXPLANE_EDGE_NAME", "")
        if not re.fullmatch(r"[a-z][a-z0-9-]{1,30}", region):
            raise SettingsError("set VOXPLANE_REGION to the id of the region, such as us-east")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,62}", name):
            raise SettingsError("set VOXPLANE_EDGE_NAME to a name unique in the region, such as edge-1")
        urls = _urls(env, "VOXPLANE_CONTROL_URLS")
        if not urls or not all(u.startswith(("http://", "https://")) for u in urls):
            raise SettingsError(
                "set VOXPLANE_CONTROL_URLS to the control plane's URLs, such as https://api.example.com"
            )
        uplinks = _urls(env, "VOXPLANE_UPLINK_URLS")
        if not all(u.startswith(("ws://", "wss://")) for u in uplinks):
            raise SettingsError(
                "VOXPLANE_UPLINK_URLS is a list of ws:// or wss:// URLs, such as wss://api.example.com"
            )
        return cls(
            region=region,
            name=name,
            control_urls=urls,
            uplink_urls=uplinks,
            data=Path(env.get("VOXPLANE_EDGE_DATA") or f"/var/lib/voxplane-edge/{region}-{name}"),
            enrol_token=env.get("VOXPLANE_EDGE_TOKEN", ""),
            media_host=env.get("VOXPLANE_MEDIA_HOST", "127.0.0.1"),
            media_port=_number(env, "VOXPLANE_MEDIA_PORT", 0, 65_535),
            http_host=env.get("VOXPLANE_HTTP_HOST", "127.0.0.1"),
            http_port=_number(env, "VOXPLANE_HTTP_PORT", 0, 65_535),
            public_media_url=env.get("VOXPLANE_PUBLIC_MEDIA_URL", "").rstrip("/"),
            public_http_url=env.get("VOXPLANE_PUBLIC_HTTP_URL", "").rstrip("/"),
            capacity_calls=_number(env, "VOXPLANE_CAPACITY", 50, 100_000) or 50,
            drain_s=_number(env, "VOXPLANE_DRAIN_S", 30, 3_600),
            redis_url=env.get("VOXPLANE_REDIS_URL", ""),
            trusted_proxies=_networks(env, "VOXPLANE_TRUSTED_PROXIES"),
            local_targets=env.get("VOXPLANE_ALLOW_LOCAL_TARGETS", "") == "1",
            log_format=env.get("VOXPLANE_LOG_FORMAT", "json"),
        )


def _urls(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(u.strip().rstrip("/") for u in env.get(name, "").split(",") if u.strip())


def _networks(env: Mapping[str, str], name: str) -> Networks:
    try:
        return tuple(ip_network(part.strip()) for part in env.get(name, "").split(",") if part.strip())
    except ValueError:
        raise SettingsError(
            f"{name} is a list of addresses or networks, such as 10.0.0.0/8,2001:db8::1"
        ) from None


def _number(env: Mapping[str, str], name: str, default: int, high: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) > high:
        raise SettingsError(f"{name} must be a whole number up to {high}")
    return int(text)
