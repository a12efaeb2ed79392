"""Which addresses Voxplane may dial for a customer: backends and webhooks. Pure: text and resolved addresses come in.

Two steps, both needed. `check_url` refuses what can be refused from the text alone, `check_ip` every address a name
resolves to; whoever dials connects to the very address that passed, so that a name cannot change its mind in between
(DNS rebinding). What is refused: private, loopback, link-local (cloud metadata), carrier-grade NAT, multicast, reserved
and documentation ranges, and the ways to hide an IPv4 address in an IPv6 one (mapped, compatible, NAT64, 6to4, Teredo).
Numbers written in odd ways (octal, hexadecimal, one integer, short forms) are refused as such.

`local_targets` admits loopback, and `ws://` and `http://` with it: for test projects of a local deployment. `listed` admits what the
project has named itself (`regions.wire.targets`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from regions.wire.targets import Targets

URL_CHARS_MAX = 2_048
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_PORTS_CLOSED = frozenset(
    {22, 23, 25, 53, 110, 135, 137, 138, 139, 143, 445, 465, 587, 993, 995, 3306, 5432, 6379, 11211, 27017}
)
_ELSEWHERE = ("bad_scheme", "insecure", "private_address")
_LOCAL_NAMES = frozenset({"localhost"})
_INTERNAL_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa", ".localdomain")

_V4_CLOSED = [
    ip_network(n)
    for n in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
_V6_OPEN = IPv6Network("2000::/3")
_V6_CLOSED = [
    IPv6Network(n)
    for n in (
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2620:4f:8000::/48",
    )
]


class AddressError(Exception):
    """An address that may not be dialled. `code` is stable; `fix` says what to use instead."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. `host` without brackets, lower case; `path` with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def secure(self) -> bool:
        return self.scheme in ("wss", "https")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """``host:port``, the port always."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@lru_cache(maxsize=4_096)
def check_url(
    url: str, *, schemes: tuple[str, ...], local_targets: bool = False, listed: Targets | None = None
) -> Target:
    """`schemes`: the secure one first, then the plain one, which only `local_targets` admits. Raises `AddressError`, which
    for another place than those that may be dialled says which ones are."""
    try:
        return _taken_apart(url, schemes=schemes, local_targets=local_targets, listed=listed)
    except AddressError as error:
        if error.code not in _ELSEWHERE:
            raise
        raise AddressError(error.code, error.detail, _places(schemes, local_targets=local_targets)) from None


def _places(schemes: tuple[str, ...], *, local_targets: bool) -> str:
    secure, plain = schemes[0], schemes[-1]
    if local_targets:
        return f"Use {secure}:// with a public host, or {plain}:// with localhost, 127.0.0.1 or [::1]."
    return (
        f"Use {secure}:// with a public host. {plain}:// and loopback are for test projects, on instances and edges that "
        "are started with VOXPLANE_ALLOW_LOCAL_TARGETS=1."
    )


def _taken_apart(
    url: str, *, schemes: tuple[str, ...], local_targets: bool, listed: Targets | None
) -> Target:
    if (
        not url
        or len(url) > URL_CHARS_MAX
        or not url.isascii()
        or any(c <= " " or c in '\\"<>^`{|}\x7f' for c in url)
    ):
        raise AddressError("bad_url", "this is not a URL", f"Write it like {schemes[0]}://host/path")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise AddressError(
            "bad_url", "this is not a URL", f"Write it like {schemes[0]}://host/path"
        ) from None
    if parts.scheme not in schemes:
        raise AddressError(
            "bad_scheme", f"the scheme must be {schemes[0]}", f"Write it like {schemes[0]}://host/path"
        )
    if "@" in parts.netloc:
        raise AddressError(
            "userinfo", "a URL with a user name is not dialled", "Leave user and password out."
        )
    if parts.fragment:
        raise AddressError("bad_url", "a URL to dial has no fragment", "Leave # and what follows out.")
    host = (parts.hostname or "").lower()
    secure = parts.scheme == schemes[0]
    number = port if port is not None else (443 if secure else 80)
    own = listed is not None and listed.admits_host(host, number)
    if not own:
        _check_host(host, local_targets=local_targets)
    if not secure and not own and not (local_targets and is_local_name(host)):
        raise AddressError(
            "insecure",
            f"{parts.scheme}:// to that host is not encrypted",
            f"Use {schemes[0]}://.",
        )
    if number == 0 or (number in _PORTS_CLOSED and not (local_targets and is_local_name(host))):
        raise AddressError(
            "bad_port", "this port is not dialled", "Use the port of a web server, such as 443."
        )
    return Target(
        parts.scheme, host, number, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    )


@lru_cache(maxsize=4_096)
def check_ip(
    text: str, *, local_targets: bool = False, listed: Targets | None = None, host: str = "", port: int = 0
) -> None:
    """Raises `AddressError` unless a socket may be opened to this address. IPv6 zones are refused. `host`, `port`: of the URL,
    where something is `listed`."""
    try:
        address = ip_address(text)
    except ValueError:
        raise AddressError("bad_address", "this is not an address", "Use a public address.") from None
    if local_targets and is_loopback(address):
        return
    if listed is not None and listed.admits(address, host, port):
        return
    if not is_public(address):
        raise AddressError(
            "private_address", "this address is not public", "Use a host with a public address."
        )


def is_loopback(address: IPv4Address | IPv6Address) -> bool:
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _V4_CLOSED)
    if address.scope_id is not None or address not in _V6_OPEN:
        return False
    return not any(address in network for network in _V6_CLOSED)


def is_local_name(host: str) -> bool:
    if host in _LOCAL_NAMES:
        return True
    try:
        return is_loopback(ip_address(host))
    except ValueError:
        return False


def _check_host(host: str, *, local_targets: bool) -> None:
    if not host or len(host) > 253 or "%" in host:
        raise AddressError("bad_host", "the host cannot be used", "Use a public host name.")
    if ":" in host:
        check_ip(host, local_targets=local_targets)
        return
    labels = host.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]) or all(_NUMERIC_LABEL.fullmatch(label) for label in labels):
        # an IPv4 address has one way to be written here
        try:
            plain = str(IPv4Address(host)) == host
        except ValueError:
            plain = False
        if not plain:
            raise AddressError(
                "bad_host",
                "the address is written in an unusual way",
                "Write it as four decimal numbers, or use a name.",
            )
        check_ip(host, local_targets=local_targets)
        return
    if host in _LOCAL_NAMES and local_targets:
        return
    if host in _LOCAL_NAMES or host.endswith(_INTERNAL_SUFFIXES):
        raise AddressError("private_address", "this name is not public", "Use a public host name.")
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressError(
            "bad_host", "the host name cannot be used", "Use a full public host name, without a trailing dot."
        )
