"""What an edge is told by its environment, checked once, at the start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from regions.edge.peer import Networks
from regions.wire.otlp import OFF, OtlpError, Tracing
from regions.wire.otlp import from_env as tracing_from_env

VOICE_DETECTORS = ("auto", "silero", "webrtc")


class SettingsError(Exception):
    """A setting that cannot be used; the text says which and how to write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """`control_urls`: the instances, tried in order. `enrol_token`: needed the first time. `public_*`: how callers reach the
    listeners, where that differs from where they are bound. `uplink_urls`: instead of what the control plane says. `data`: the
    edge's key and the keys it was given. `key_days`: how old that key becomes; 0: another only on demand. `drain_s`: so long
    its calls may take to move when it is told to stop. `trusted_proxies`: those in front of the
    listeners, whose ``X-Forwarded-For`` is believed. `talk_page`: serve the page to talk to one's own bot.
    `webrtc`: callers may come over WebRTC; `ice_servers` are the edge's own, `rtc_ports` the UDP ports for their audio.
    `tls_certificate` and `tls_key`: of both listeners, in PEM; none: they are plain. `ca_file`: trusted beside what the machine does.
    `voice_detector`: ``auto`` (Silero where it is installed), ``silero`` or ``webrtc``."""

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
    key_days: int = 30
    drain_s: int = 30
    redis_url: str = ""
    trusted_proxies: Networks = ()
    local_targets: bool = False
    talk_page: bool = False
    webrtc: bool = False
    ice_servers: tuple[str, ...] = ()
    rtc_ports: tuple[int, int] | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    ca_file: str = ""
    log_format: str = "json"
    voice_detector: str = "auto"
    tracing: Tracing = OFF

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
        certificate, key = env.get("VOXPLANE_TLS_CERT", ""), env.get("VOXPLANE_TLS_KEY", "")
        if bool(certificate) != bool(key):
            raise SettingsError(
                "set both, VOXPLANE_TLS_CERT and VOXPLANE_TLS_KEY, to files in PEM, or neither"
            )
        return cls(
            region=region,
            tls_certificate=Path(certificate) if certificate else None,
            tls_key=Path(key) if key else None,
            ca_file=env.get("VOXPLANE_CA_FILE", ""),
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
            key_days=_number(env, "VOXPLANE_EDGE_KEY_DAYS", 30, 3_650),
            redis_url=env.get("VOXPLANE_REDIS_URL", ""),
            trusted_proxies=_networks(env, "VOXPLANE_TRUSTED_PROXIES"),
            local_targets=env.get("VOXPLANE_ALLOW_LOCAL_TARGETS", "") == "1",
            talk_page=env.get("VOXPLANE_TALK_PAGE", "") == "1",
            webrtc=env.get("VOXPLANE_WEBRTC", "") == "1",
            ice_servers=_ice_servers(env, "VOXPLANE_ICE_SERVERS"),
            rtc_ports=_ports(env, "VOXPLANE_RTC_PORTS"),
            log_format=env.get("VOXPLANE_LOG_FORMAT", "json"),
            voice_detector=_one_of(env, "VOXPLANE_VOICE_DETECTOR", VOICE_DETECTORS),
            tracing=_tracing(env),
        )


def _tracing(env: Mapping[str, str]) -> Tracing:
    try:
        return tracing_from_env(env)
    except OtlpError as error:
        raise SettingsError(str(error)) from None


def _urls(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(u.strip().rstrip("/") for u in env.get(name, "").split(",") if u.strip())


def _ice_servers(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    urls = _urls(env, name)
    if not all(u.startswith(("stun:", "stuns:", "turn:", "turns:")) for u in urls):
        raise SettingsError(f"{name} is a list of STUN or TURN URLs, such as stun:stun.example.com:3478")
    return urls


def _ports(env: Mapping[str, str], name: str) -> tuple[int, int] | None:
    text = env.get(name, "")
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text, re.ASCII)
    if found is None or not 1_024 <= int(found[1]) <= int(found[2]) <= 65_535:
        raise SettingsError(f"{name} is a range of ports from 1024 to 65535, such as 40000-40999")
    return int(found[1]), int(found[2])


def _networks(env: Mapping[str, str], name: str) -> Networks:
    try:
        return tuple(ip_network(part.strip()) for part in env.get(name, "").split(",") if part.strip())
    except ValueError:
        raise SettingsError(
            f"{name} is a list of addresses or networks, such as 10.0.0.0/8,2001:db8::1"
        ) from None


def _one_of(env: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    """The first where it is not set."""
    value = env.get(name) or values[0]
    if value not in values:
        raise SettingsError(f"{name} is one of {', '.join(values)}")
    return value


def _number(env: Mapping[str, str], name: str, default: int, high: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) > high:
        raise SettingsError(f"{name} must be a whole number up to {high}")
    return int(text)
