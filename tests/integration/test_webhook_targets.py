"""No webhook is sent to where it may not go, however the address is written or resolved: over 300 targets, and not one connection."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.webhooks import lookups
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

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
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


async def test_hosts_whose_name_server_hangs_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, begun = threading.Event(), threading.Semaphore(0)
    real = socket.getaddrinfo

    def hanging(host: Any, *more: Any, **given: Any) -> Any:
        if str(host).endswith(".slow.example"):
            begun.release()
            answered.wait(30)
            raise socket.gaierror
        return real("127.0.0.1", *more, **given)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    # as where the machine has few cores: the event loop's own pool is small, and must not be what lookups wait for
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    sender = Sender(local_targets=False)
    hung = [asyncio.create_task(sender.post(f"https://a{n}.slow.example/", b"", {})) for n in range(24)]
    try:
        for _ in range(2):
            while not begun.acquire(blocking=False):
                await asyncio.sleep(0.01)
        answer = await sender.post("https://quick.example/", b"", {})
        assert answer.error == "private_address"
    finally:
        answered.set()
        await asyncio.gather(*hung)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8))
        await sender.close()


async def test_a_host_that_answered_late_is_looked_up_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "SLOW_S", 0.0)
    names: list[str] = []

    def found(*_: Any, **__: Any) -> list[Any]:
        names.append(threading.current_thread().name)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", found)
    asked = lookups.Lookups()
    for _ in range(2):
        await asked.find("late.example", 443, socket.AF_UNSPEC)
    asked.close()
    assert [n.rpartition("_")[0] for n in names] == ["lookup", "lookup-slow"]


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["interim", "chunk"],
)
async def test_an_answer_that_never_comes_to_an_end_is_broken_off(endless: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(endless)
            while sent < 64 << 20:
                part = endless * 1_000 if b"103" in endless else b"x" * 65_536
                writer.write(part)
                await writer.drain()
                sent += len(part)
            await reader.read()  # all of it was taken: wait for the deadline
        except OSError:
            pass
        finally:
            cut.set_result(sent)
            writer.close()

    cut: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    sender = Sender(local_targets=True)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        came = await sender.post(f"http://127.0.0.1:{port}/", b"{}", {}, local_targets=True)
        assert await cut < 64 << 20
    assert not came.timed_out
    await sender.close()
