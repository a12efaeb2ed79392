"""Whose word on a request's address is taken: the connection's, and that of the operator's own proxies, read from its end."""

from __future__ import annotations

from typing import Any

import pytest

from app.peer import HOPS_MAX, Peers, read_address, read_network, within

PROXIES = [read_network("10.0.0.0/8"), read_network("fd00::/8"), read_network("127.0.0.1")]


def scope(client: str | None, *forwarded: str, proto: str | None = None, scheme: str = "http") -> Any:
    headers = [(b"x-forwarded-for", f.encode("latin-1")) for f in forwarded]
    headers += [(b"x-forwarded-proto", proto.encode())] if proto is not None else []
    return {"client": (client, 4711) if client else None, "headers": headers, "scheme": scheme}


@pytest.mark.parametrize(
    ("client", "forwarded", "is_"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # not a proxy: what it says of others is nothing
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),  # the first was there before the proxy
        ("10.1.1.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ["198.51.100.1, 10.2.2.2"], "198.51.100.1"),
        ("10.1.1.1", ["10.2.2.2, 198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("10.1.1.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("fd00::1", ["fe80::1%eth0"], "fe80::1"),
        ("::ffff:10.1.1.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ['"198.51.100.1"'], "198.51.100.1"),
        ("10.1.1.1", ["198.51.100.1, unknown"], None),  # nobody: never the one before it
        ("10.1.1.1", ["198.51.100.1,"], None),
        ("10.1.1.1", ["198.51.100.1, 0x0a.1.1.1"], None),
        ("10.1.1.1", ["010.1.1.1"], None),
        ("10.1.1.1", ["198.51.100.1 10.2.2.2"], None),
        ("10.1.1.1", ["\u00e9"], None),
        ("10.1.1.1", ["1.1.1.1," + "10.2.2.2," * HOPS_MAX + "10.2.2.2"], "10.2.2.2"),
        (None, ["198.51.100.1"], None),
        ("testclient", ["198.51.100.1"], None),
    ],
)
def test_the_sender_is_the_last_who_is_not_a_proxy(
    client: str, forwarded: list[str], is_: str | None
) -> None:
    found = Peers(PROXIES).of(scope(client, *forwarded))
    assert (str(found) if found is not None else None) == is_


def test_without_trusted_proxies_the_header_is_never_looked_at() -> None:
    assert str(Peers().of(scope("10.1.1.1", "198.51.100.1"))) == "10.1.1.1"


def test_a_proxy_says_whether_the_sender_came_over_tls_and_nobody_else_does() -> None:
    peers = Peers(PROXIES)
    assert peers.is_secure(scope("10.1.1.1", proto="https"))
    assert not peers.is_secure(scope("10.1.1.1"))
    assert not peers.is_secure(scope("203.0.113.9", proto="https"))
    assert peers.is_secure(scope("203.0.113.9", scheme="https"))


def test_an_address_lies_in_networks_of_its_own_kind() -> None:
    networks = [read_network("0.0.0.0/0"), read_network("2001:db8::/48")]
    inside = [within(read_address(a), networks) for a in ("8.8.8.8", "2001:db8::1", "2001:db9::1")]
    assert inside == [True, True, False]
    assert not within(None, networks)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("2001:db8::1/32", "write 2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "write it as IPv4"),
        ("300.0.0.1", "such as"),
        ("example.org", "such as"),
        ("10.0.0.0/33", "such as"),
        ("", "such as"),
    ],
)
def test_what_is_no_network_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_network(text)
