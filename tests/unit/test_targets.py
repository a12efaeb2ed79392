"""What a project can name as a target of its own, and what that opens: nothing but that, and never a metadata service."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from app.errors import Forbidden, Invalid, NotAvailable
from app.projects.targets import checked, targets_of
from regions.wire.addresses import AddressError, check_ip, check_url
from regions.wire.targets import TargetError, Targets, read_target, read_targets

SCHEMES = ("https", "http")


@pytest.mark.parametrize(
    "text",
    ["localhost:3000", "localhost", "devbox", "devbox.lan:8080", "hook.internal", "192.168.1.0/24", "10.0.0.0/8",
     "192.168.1.7", "127.0.0.1:9000", "[::1]:3000", "::1", "fd12::/64", "100.64.0.0/10"],
)  # fmt: skip
def test_what_can_be_listed(text: str) -> None:
    read_target(text)


@pytest.mark.parametrize(
    "text",
    ["", "*", "0.0.0.0/0", "::/0", "8.8.8.8", "8.8.8.0/24", "169.254.169.254", "169.254.0.0/16", "169.254.169.254:80",
     "100.100.100.200", "fd00:ec2::254", "[fd00:ec2::254]:80", "fd20:ce::254", "fe80::/10", "fe80::1%eth0", "224.0.0.1",
     "0.0.0.0", "255.255.255.255", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
     "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "10.0.0.1/8", "localhost:0", "localhost:70000", "localhost:x",
     "localhost:", "a b", "http://localhost", "user@host", "host/path", "[::1", "-a.lan", "a..b", "x" * 300, "ä.lan"],
)  # fmt: skip
def test_what_cannot(text: str) -> None:
    with pytest.raises(TargetError):
        read_target(text)


def opened(listed: Targets | None, url: str, address: str) -> bool:
    """Whether the URL may be named and that address of its host dialled."""
    try:
        target = check_url(url, schemes=SCHEMES, listed=listed)
        check_ip(address, listed=listed, host=target.host, port=target.port)
    except AddressError:
        return False
    return True


@pytest.mark.parametrize(
    ("given", "url", "address", "may"),
    [
        ("localhost:3000", "http://localhost:3000/hook", "127.0.0.1", True),
        ("localhost:3000", "http://localhost:3001/hook", "127.0.0.1", False),
        ("localhost:3000", "http://127.0.0.1:3000/hook", "127.0.0.1", False),
        ("devbox.lan", "http://devbox.lan:8080/", "192.168.7.7", True),
        ("devbox.lan", "http://devbox.lan:8080/", "169.254.169.254", False),
        ("devbox.lan", "http://devbox.lan:8080/", "fd00:ec2::254", False),
        ("devbox.lan", "http://devbox.lan:8080/", "::ffff:10.0.0.1", False),
        ("devbox.lan", "http://other.lan:8080/", "192.168.7.7", False),
        ("devbox.lan", "http://devbox.lan.example.com/", "192.168.7.7", False),
        ("devbox.lan", "http://devbox.lan@169.254.169.254/", "169.254.169.254", False),
        ("devbox.lan", "http://devbox.lan:5432/", "192.168.7.7", False),
        ("192.168.1.0/24", "http://192.168.1.9/hook", "192.168.1.9", True),
        ("192.168.1.0/24", "http://192.168.2.9/hook", "192.168.2.9", False),
        ("192.168.1.0/24", "https://hooks.example.com/", "192.168.1.9", True),
        ("192.168.1.0/24", "http://hooks.example.com/", "192.168.1.9", False),
        ("192.168.1.0/24", "http://0xc0.168.1.9/hook", "192.168.1.9", False),
        ("192.168.1.0/24", "http://[::ffff:192.168.1.9]/", "::ffff:192.168.1.9", False),
        ("192.168.1.7:8080", "http://192.168.1.7:8080/", "192.168.1.7", True),
        ("192.168.1.7:8080", "http://192.168.1.7:80/", "192.168.1.7", False),
        ("100.64.0.0/10", "http://100.100.100.200/latest", "100.100.100.200", False),
        ("[::1]:3000", "http://[::1]:3000/", "::1", True),
    ],
)
def test_what_is_listed_opens_that_and_no_more(given: str, url: str, address: str, may: bool) -> None:
    assert opened(read_targets((given,)), url, address) is may
    assert not opened(None, url, address) or ip_address(address).is_global


def test_what_is_public_stays_open_beside_a_list() -> None:
    assert opened(read_targets(("localhost:3000",)), "https://hooks.example.com/", "93.184.215.14")


def test_a_live_project_has_none_whatever_its_row_says() -> None:
    row = '{"targets": ["localhost:3000"]}'
    assert targets_of("test", row) is not None
    assert targets_of("live", row) is None
    assert targets_of("test", "{}") is None


def test_who_may_list_what() -> None:
    assert checked(["LocalHost:3000", "localhost:3000"], mode="test", allowed=True) == ["localhost:3000"]
    assert checked([], mode="live", allowed=False) == []
    with pytest.raises(Forbidden) as live:
        checked(["localhost:3000"], mode="live", allowed=True)
    assert live.value.stable_code == "live_project"
    with pytest.raises(NotAvailable):
        checked(["localhost:3000"], mode="test", allowed=False)
    with pytest.raises(Invalid) as bad:
        checked(["localhost:3000", "169.254.169.254"], mode="test", allowed=True)
    assert [e.pointer for e in bad.value.errors] == ["/targets/1"]
