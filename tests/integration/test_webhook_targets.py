"""No webhook is sent to where it may not go, however the address is written or resolved: over 300 targets, and not one connection."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any

import pytest

from app.webhooks.sender import Sender
from tests.unit.test_addresses import HIDDEN, NAMES, ODD, PRIVATE

PUBLIC = "93.184.215.14"
LITERALS = [
    f"{scheme}://{f'[{a}]' if ':' in a else a}{port}/hook"
    for scheme, a, port in itertools.product(("https", "http"), [*PRIVATE, *HIDDEN], ("", ":8443"))
]
WRITTEN = [f"{scheme}://{host}/hook" for scheme, host in itertools.product(("https", "http"), [*ODD, *NAMES])]
RESOLVED = [[a] for a in [*PRIVATE, *HIDDEN] if "%" not in a] + [
    [PUBLIC, a] for a in [*PRIVATE, *HIDDEN] if "%" not in a
]


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses to which a connection was begun; none is made."""
    seen: list[Any] = []

    async def begin(addr_infos: list[Any], **_: Any) -> socket.socket:
        seen.append(list(addr_infos))
        raise ConnectionRefusedError

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", begin)
    return seen


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the next look-ups of any name give; the last for good."""
    answers: list[list[str]] = []

    async def look_up(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in found
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    return answers


def test_there_are_enough() -> None:
    assert len(LITERALS) + len(WRITTEN) + len(RESOLVED) >= 300


async def test_no_way_of_writing_an_inner_address_is_dialled(dialled: list[Any]) -> None:
    sender = Sender(local_targets=False)
    try:
        for url in [*LITERALS, *WRITTEN]:
            answer = await sender.post(url, b"{}", {})
            assert answer.status is None, url
            assert dialled == [], url
    finally:
        await sender.close()


async def test_no_name_that_resolves_to_an_inner_address_is_dialled(
    dialled: list[Any], names: list[list[str]]
) -> None:
    sender = Sender(local_targets=False)
    try:
        for addresses in RESOLVED:
            names[:] = [addresses]
            answer = await sender.post("https://hooks.example.com/", b"{}", {})
            assert answer.status is None, addresses
            assert dialled == [], addresses
    finally:
        await sender.close()


async def test_the_very_address_that_passed_is_dialled(dialled: list[Any], names: list[list[str]]) -> None:
    """A name that changes its mind in between (rebinding) is looked up once."""
    names[:] = [[PUBLIC], ["127.0.0.1"]]
    sender = Sender(local_targets=False)
    try:
        await sender.post("https://hooks.example.com/", b"{}", {})
    finally:
        await sender.close()
    assert [info[4][0] for infos in dialled for info in infos] == [PUBLIC]
