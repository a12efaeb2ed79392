"""What an instance of the control plane is told by its environment, checked once, at the start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.cells.settings import CellSettings, SettingsError, cells_of, checked_jurisdiction
from app.peer import read_network
from app.people.settings import SignInSettings
from app.projects.quotas_policy import NO_LIMITS, DefaultLimits, read_defaults
from regions.wire.otlp import OFF, OtlpError, Tracing
from regions.wire.otlp import from_env as tracing_from_env

__all__ = ["Settings", "SettingsError", "data_folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`redis_urls`: region → URL. `uplink_urls`: how edges reach the instances, tried in order. `operator_key`: the
    platform's own key (`vx_op_…`). `local_targets`: test projects may name backends and webhooks on loopback, over `ws://` and `http://`.
    `project_targets`: test projects may list inner hosts and networks that their webhooks may reach.
    `lost_after_s`: so long a call without its caller or its edge waits before its edges are asked whether it is over.
    `deliveries`: whether this instance sends webhooks; one that does not leaves them to the others.
    `events_kept_d`, `calls_kept_d`: so many days at least; calls as long as their events.
    `default_quotas`: what holds for a project of which the operators have set no limit of that name.
    `audit_kept_d`: so many days entries of the audit log are kept.
    `networks_kept_days`: for so long what was learned of a network's round trips is kept. `geo_files`: the operator's files in
    MaxMind's format, with autonomous systems, cities, or both.
    `trusted_proxies`: the networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; none: nobody's.
    `fleet_keys_days`, `signing_keys_days`: how old a key of the fleet becomes before the next one is made; 0: only by command.
    `egress_proxy`: an HTTP proxy through which webhooks leave (``http://host:port``); addresses are filtered before it too.
    `jurisdictions`: where this instance runs, such as ``de`` and ``eu``; webhooks of a cell that names another, and those of calls
    that allow none of them, are left to others. `tls`: the certificate and the key that it serves with; none: plain.
    `cells`: the home cell first; none: the one of `database_url`, without a
    jurisdiction."""

    database_url: str
    database_urls: dict[str, str] = field(default_factory=dict)
    redis_urls: dict[str, str] = field(default_factory=dict)
    cell: int = 0
    cells: tuple[CellSettings, ...] = ()
    jurisdictions: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    uplink_urls: tuple[str, ...] = ()
    data: Path = Path("/var/lib/voxplane")
    operator_key: str = ""
    local_targets: bool = False
    project_targets: bool = False
    log_format: str = "json"
    attach_within_s: int = 120
    lost_after_s: int = 45
    deliveries: bool = True
    egress_proxy: str = ""
    events_kept_d: int = 30
    calls_kept_d: int = 90
    audit_kept_d: int = 400
    default_quotas: DefaultLimits = NO_LIMITS
    networks_kept_days: int = 30
    fleet_keys_days: int = 30
    signing_keys_days: int = 90
    geo_files: tuple[Path, ...] = ()
    tracing: Tracing = OFF
    sign_in: SignInSettings = field(default_factory=SignInSettings)
    trusted_proxies: tuple[str, ...] = ()
    tls: tuple[Path, Path] | None = None

    def __post_init__(self) -> None:
        if self.calls_kept_d < self.events_kept_d:
            raise SettingsError("VOXPLANE_CALLS_KEPT_DAYS must not be less than VOXPLANE_EVENTS_KEPT_DAYS")

    @property
    def all_cells(self) -> tuple[CellSettings, ...]:
        """The home cell first; one at least."""
        home = CellSettings(number=self.cell, url=self.database_url, urls=self.database_urls, home=True)
        return self.cells or (home,)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Reads `DATABASE_URL`, `DATABASE_URL_<ROLE>`, `CELLS` (``0=us,1=eu``), `DATABASE_URL_CELL_<number>`, `REDIS_URLS`
        (``us-east=redis://…,…``) and `VOXPLANE_*`."""
        env = os.environ if env is None else env
        cells = cells_of(env, _number(env, "VOXPLANE_CELL", 0, 0, 4095))
        here = [p.strip() for p in env.get("VOXPLANE_JURISDICTION", "").split(",") if p.strip()]
        return cls(
            database_url=cells[0].url,
            database_urls=cells[0].urls,
            redis_urls=_redis_urls(env.get("REDIS_URLS", "")),
            cell=cells[0].number,
            cells=cells,
            jurisdictions=tuple(checked_jurisdiction("VOXPLANE_JURISDICTION", place) for place in here),
            host=env.get("VOXPLANE_HOST", "127.0.0.1"),
            port=_number(env, "VOXPLANE_PORT", 8080, 0, 65535),
            uplink_urls=tuple(
                u.strip().rstrip("/") for u in env.get("VOXPLANE_UPLINK_URLS", "").split(",") if u.strip()
            ),
            data=data_folder(env),
            operator_key=env.get("VOXPLANE_OPERATOR_KEY", ""),
            local_targets=env.get("VOXPLANE_ALLOW_LOCAL_TARGETS", "") == "1",
            project_targets=_switch(env, "VOXPLANE_ALLOW_PROJECT_TARGETS", default=False),
            log_format=env.get("VOXPLANE_LOG_FORMAT", "json"),
            attach_within_s=_number(env, "VOXPLANE_ATTACH_WITHIN_S", 120, 1, 900),
            deliveries=_switch(env, "VOXPLANE_DELIVERIES", default=True),
            egress_proxy=_proxy(env.get("VOXPLANE_EGRESS_PROXY", "")),
            events_kept_d=_number(env, "VOXPLANE_EVENTS_KEPT_DAYS", 30, 30, 3650),
            calls_kept_d=_number(env, "VOXPLANE_CALLS_KEPT_DAYS", 90, 30, 3650),
            audit_kept_d=_number(env, "VOXPLANE_AUDIT_KEPT_DAYS", 400, 30, 3650),
            default_quotas=_quotas(env, "VOXPLANE_DEFAULT_QUOTAS"),
            networks_kept_days=_number(env, "VOXPLANE_NETWORKS_KEPT_DAYS", 30, 1, 365),
            fleet_keys_days=_number(env, "VOXPLANE_FLEET_KEYS_DAYS", 30, 0, 365),
            signing_keys_days=_number(env, "VOXPLANE_SIGNING_KEYS_DAYS", 90, 0, 365),
            geo_files=tuple(Path(p) for p in env.get("VOXPLANE_GEO_FILES", "").split(os.pathsep) if p),
            trusted_proxies=_networks(env, "VOXPLANE_TRUSTED_PROXIES"),
            tls=_tls(env),
            lost_after_s=_number(env, "VOXPLANE_LOST_AFTER_S", 45, 1, 3600),
            sign_in=SignInSettings.from_env(env),
            tracing=_tracing(env),
        )


def data_folder(env: Mapping[str, str]) -> Path:
    """`VOXPLANE_DATA`, else `$XDG_STATE_HOME/voxplane`, else ``/var/lib/voxplane`` for root."""
    if given := env.get("VOXPLANE_DATA"):
        return Path(given)
    if os.geteuid() == 0 and not env.get("XDG_STATE_HOME"):
        return Path("/var/lib/voxplane")
    return Path(env.get("XDG_STATE_HOME") or Path(env.get("HOME", "/")) / ".local" / "state") / "voxplane"


def _tracing(env: Mapping[str, str]) -> Tracing:
    try:
        return tracing_from_env(env)
    except OtlpError as error:
        raise SettingsError(str(error)) from None


def _number(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise SettingsError(f"{name} must be a whole number from {low} to {high}")
    return int(text)


def _quotas(env: Mapping[str, str], name: str) -> DefaultLimits:
    try:
        return read_defaults(env.get(name, ""))
    except ValueError as error:
        raise SettingsError(f"{name}: {error}; write it as concurrent_calls=100,creates_per_s=10") from None


def _switch(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name, "")
    if text not in ("", "0", "1"):
        raise SettingsError(f"{name} must be 0 or 1")
    return default if not text else text == "1"


def _networks(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    found = []
    for part in filter(None, (p.strip() for p in env.get(name, "").split(","))):
        try:
            found.append(str(read_network(part)))
        except ValueError as error:
            raise SettingsError(f"{name}: {part!r}: {error}") from None
    return tuple(found)


def _tls(env: Mapping[str, str]) -> tuple[Path, Path] | None:
    certificate, key = env.get("VOXPLANE_TLS_CERT", ""), env.get("VOXPLANE_TLS_KEY", "")
    if bool(certificate) != bool(key):
        raise SettingsError("set both, VOXPLANE_TLS_CERT and VOXPLANE_TLS_KEY, to files in PEM, or neither")
    return (Path(certificate), Path(key)) if certificate else None


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
