"""The address filter: no way of writing a private address gets through."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions.wire.addresses import AddressError, check_ip, check_url

WS, WEB = ("wss", "ws"), ("https", "http")
PRIVATE = [
    "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.127.255.255", "0.0.0.0", "0.1.2.3", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1",
]  # fmt: skip
HIDDEN = [
    "::1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::1",
    "2002:7f00:1::", "2002:a00:1::1", "2001::1", "2001:0:53aa:64c::1", "2001:db8::1", "fe80::1", "fec0::1", "fc00::1", "fd12::1",
    "ff02::1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "100::1", "3fff::1", "fe80::1%eth0", "2001:10::1", "2001:20::1",
]  # fmt: skip
ODD = [
    "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "017700000001", "0x7f.1", "10.1", "127.0.0.01",
    "127.0.0.1.", "localhost.", "127。0。0。1", "1", "0", "0x0", "169.254.43518", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376",
    "256.1.1.1", "1.1.1.1.1", "127.0.0.0x1",
]  # fmt: skip
NAMES = [
    "localhost",
    "a.localhost",
    "printer.local",
    "metadata.google.internal",
    "router.home.arpa",
    "x.localdomain",
    "intranet",
]
SHAPES = [
    "", " ", "wss://", "wss:///x", "//example.com", "example.com", "ftp://example.com", "javascript:alert(1)", "wss://user@example.com/",
    "wss://user:pw@example.com/", "wss://example.com#f", "wss://exa mple.com/", "wss://example.com/\r\nHost: x", "wss://exämple.com/",
    "wss://example.com:0/", "wss://example.com:99999/", "wss://example.com:22/", "wss://example.com:6379/", "wss://[::1/", "wss://-a.com/",
    "wss://a-.com/", "wss://" + "a" * 64 + ".com/", "wss://" + "a." * 130 + "com/", "wss://example..com/", "wss://.example.com/",
    "wss://example.com/" + "x" * 2_048, "wss://example.com\\@127.0.0.1/", "wss://127.0.0.1\\.example.com/", "wss://%31%32%37.0.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("address", [*PRIVATE, *HIDDEN])
def test_private_addresses_are_not_dialled(address: str) -> None:
    with pytest.raises(AddressError):
        check_ip(address)
    host = f"[{address}]" if ":" in address else address
    for schemes in (WS, WEB):
        with pytest.raises(AddressError):
            check_url(f"{schemes[0]}://{host}/x", schemes=schemes)
        with pytest.raises(AddressError):
            check_url(f"{schemes[0]}://{host}:8443/x", schemes=schemes)


@pytest.mark.parametrize("host", [*ODD, *NAMES])
def test_odd_and_internal_hosts_are_refused(host: str) -> None:
    with pytest.raises(AddressError):
        check_url(f"wss://{host}/x", schemes=WS)


@pytest.mark.parametrize("url", SHAPES)
def test_what_is_no_url_is_refused_with_a_fix(url: str) -> None:
    with pytest.raises(AddressError) as refused:
        check_url(url, schemes=WS)
    assert refused.value.fix


@pytest.mark.parametrize("url", ["ws://example.com/x", "ws://8.8.8.8/"])
def test_plain_sockets_are_only_for_loopback(url: str) -> None:
    for local in (False, True):
        with pytest.raises(AddressError) as refused:
            check_url(url, schemes=WS, local_targets=local)
        assert refused.value.code == "insecure"


@pytest.mark.parametrize(
    "url", ["ws://localhost:9000/a?b=c", "ws://127.0.0.1:9/", "ws://[::1]:9/", "wss://localhost/"]
)
def test_loopback_is_for_local_targets(url: str) -> None:
    assert check_url(url, schemes=WS, local_targets=True).host in ("localhost", "127.0.0.1", "::1")
    with pytest.raises(AddressError):
        check_url(url, schemes=WS)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fe80::1"]
)
def test_local_targets_admit_loopback_and_nothing_else(address: str) -> None:
    with pytest.raises(AddressError):
        check_ip(address, local_targets=True)


@pytest.mark.parametrize(
    "url", ["ws://example.com/", "ws://10.0.0.1/", "wss://10.0.0.1/", "wss://printer.local/", "http://x.com"]
)
def test_who_names_another_place_is_told_which_ones_may_be_dialled(url: str) -> None:
    """A live project is not sent to loopback, and a test project is told where it may go."""
    with pytest.raises(AddressError) as live:
        check_url(url, schemes=WS)
    with pytest.raises(AddressError) as local:
        check_url(url, schemes=WS, local_targets=True)
    assert "wss:// with a public host" in live.value.fix and "wss:// with a public host" in local.value.fix
    assert "VOXPLANE_ALLOW_LOCAL_TARGETS=1" in live.value.fix
    assert "ws:// with localhost" in local.value.fix


def test_a_public_url_comes_apart() -> None:
    target = check_url("wss://Bot.Example.com:8443/a/b?c=d", schemes=WS)
    assert (target.host, target.port, target.path, target.secure) == (
        "bot.example.com",
        8443,
        "/a/b?c=d",
        True,
    )
    assert target.authority == "bot.example.com:8443"
    assert check_url("https://example.com", schemes=WEB).path == "/"


@given(st.integers(0, 2**32 - 1))
def test_no_private_ipv4_hides_in_ipv6(value: int) -> None:
    address = IPv4Address(value)
    forms = [
        IPv6Address(f"::ffff:{address}"), IPv6Address(f"64:ff9b::{address}"), IPv6Address(f"::{address}"),
        IPv6Address((0x2002 << 112) | (value << 80) | 1),
    ]  # fmt: skip
    for form in forms:
        with pytest.raises(AddressError):
            check_ip(str(form))
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        with pytest.raises(AddressError):
            check_ip(str(address))
