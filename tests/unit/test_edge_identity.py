"""The edge's key on its disk, and its change stopped at every step that touches the disk: some key that works is always there."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from regions.edge import identity as module
from regions.edge import key_change
from regions.edge.identity import Identity, public_text
from regions.edge.key_change import DAY_S, KeyChange, is_due
from regions.wire.uplink import KeyTaken, KeyWanted

TOUCHES = ("open", "fsync", "replace")
"""What a change asks of the system."""
STEPS = 16
"""Of two changes, one after the other."""


class Killed(BaseException):
    """The process is gone: nothing of what follows happens."""


class Disk:
    """The system's calls, of which the one numbered `fails_at` fails, and all after it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fails_at: int, error: Callable[[], BaseException]
    ) -> None:
        self.calls = 0
        for name in TOUCHES:
            monkeypatch.setattr(module.os, name, self._failing(getattr(os, name), fails_at, error))

    def _failing(self, real: Any, fails_at: int, error: Callable[[], BaseException]) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls >= fails_at:
                raise error()
            return real(*args, **more)

        return call


def same(one: Ed25519PrivateKey | None, other: Ed25519PrivateKey) -> bool:
    return one is not None and one.private_bytes_raw() == other.private_bytes_raw()


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(lambda: OSError(errno.ENOSPC, "full"), id="full"),
        pytest.param(lambda: OSError(errno.EROFS, "read-only"), id="read-only"),
        pytest.param(Killed, id="killed"),
    ],
)
def test_a_change_that_stops_anywhere_leaves_a_key_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]
) -> None:
    """Whatever the control plane has come to know by then is among the keys that the next start asks with, the newer one first."""
    for fails_at in range(1, STEPS + 2):
        folder = tmp_path / str(fails_at)
        known = identity = Identity(folder)
        holds = known.key  # at the control plane
        with monkeypatch.context() as patched:
            disk = Disk(patched, fails_at, error)
            try:
                for _ in range(2):
                    key = identity.begin_next()
                    holds = key  # it was told, and has taken it
                    identity.settled()
            except (OSError, Killed):
                pass
        started = Identity(folder)
        assert same(started.next_key or started.key, holds) or same(started.key, holds), fails_at
        # the process that lives on signs with a key that holds, and so does the one that comes after the disk is well again
        if error is not Killed:
            assert same(identity.next_key or identity.key, holds) or same(identity.key, holds)
        if started.next_key is not None and same(started.next_key, holds):
            started.settled()
        following = started.begin_next()
        started.settled()
        assert same(Identity(folder).key, following)
        assert Identity(folder).next_key is None
    assert disk.calls == STEPS


def test_an_edge_that_could_not_put_its_key_in_place_keeps_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity(tmp_path)
    first, second = identity.key, identity.begin_next()
    with monkeypatch.context() as patched:
        Disk(patched, 1, lambda: OSError(errno.EROFS, "read-only"))
        identity.settled()
        assert same(identity.key, second)
        with pytest.raises(OSError, match="read-only"):
            identity.begin_next()  # nothing overwrites the only copy of the present key
    started = Identity(tmp_path)
    assert same(started.key, first)
    assert same(started.next_key, second)
    # the disk is well again: the key after that is made beside the present one, and not over it
    third = identity.begin_next()
    started = Identity(tmp_path)
    assert same(started.key, second)
    assert same(started.next_key, third)


def test_its_files_are_its_own_and_whole(tmp_path: Path) -> None:
    identity = Identity(tmp_path / "edge")
    identity.registered("edge_1")
    identity.begin_next()
    for file in (tmp_path / "edge").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    assert sorted(f.name for f in (tmp_path / "edge").iterdir()) == ["edge.id", "edge.key", "edge.next.key"]
    (tmp_path / "edge" / "edge.next.key").write_bytes(b"cut")
    assert Identity(tmp_path / "edge").next_key is None
    identity.settled()


def test_a_full_disk_does_not_cost_the_edge_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Identity(tmp_path).registered("edge_1")
    with monkeypatch.context() as patched:
        Disk(patched, 1, lambda: OSError(errno.ENOSPC, "full"))
        Identity(tmp_path).registered("edge_1")
        Identity(tmp_path).registered("edge_2")
    assert Identity(tmp_path).edge_id == "edge_1"


@pytest.mark.parametrize(
    ("age_days", "days", "due"),
    [(29.9, 30, False), (30, 30, True), (4_000, 0, False), (-0.5, 30, False), (-2, 30, True), (0, 1, False)],
)
def test_a_key_is_old(age_days: float, days: int, due: bool) -> None:
    assert is_due(since_s=1e9, now_s=1e9 + age_days * DAY_S, days=days) is due


class Control:
    """Answers what it is told by `answers`, in turn; the last one for ever. None: it says nothing."""

    def __init__(self, change: KeyChange, *answers: bool | None) -> None:
        self.change = change
        self.answers = list(answers)
        self.named: list[str] = []

    async def send(self, text: str) -> None:
        said = json.loads(text)
        assert said["type"] == "new_key"
        self.named.append(said["public_key"])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            self.change.heard(KeyTaken(public_key="another", taken=not answer))
            self.change.heard(KeyTaken(public_key=said["public_key"], taken=answer, detail="why"))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_change, "ANSWER_S", 0.01)
    monkeypatch.setattr(key_change, "AGAIN_S", 0.01)


@pytest.mark.usefixtures("soon")
async def test_it_says_the_same_key_until_it_is_taken(tmp_path: Path) -> None:
    identity = Identity(tmp_path)
    change = KeyChange(identity, "us-east")
    first, control = identity.public_key, Control(change, None, None, False, True)
    change.want()
    running = asyncio.create_task(change.run(control.send))
    await until(lambda: identity.public_key != first)
    assert len(set(control.named)) == 1
    assert len(control.named) == 4
    assert identity.public_key == control.named[0]
    assert not change.unsettled
    # a wish is one wish, however often it is said; another one is another
    change.heard(KeyWanted(asked_at_ms=1))
    await until(lambda: len(set(control.named)) == 2 and not change.unsettled)
    change.heard(KeyWanted(asked_at_ms=1))
    change.heard(KeyWanted(asked_at_ms=2))
    await until(lambda: len(set(control.named)) == 3 and not change.unsettled)
    await until(lambda: not (tmp_path / "edge.next.key").exists())
    assert control.named[-1] == public_text(Identity(tmp_path).key)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_an_uplink_left_open_the_next_one_asks_again(tmp_path: Path) -> None:
    identity = Identity(tmp_path)
    change = KeyChange(identity, "us-east")
    silent, control = Control(change, None), Control(change, True)
    change.want()
    running = asyncio.create_task(change.run(silent.send))
    await until(lambda: bool(silent.named))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert change.unsettled
    running = asyncio.create_task(change.run(control.send))
    await until(lambda: not change.unsettled and bool(control.named))
    assert control.named == silent.named
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.usefixtures("soon")
async def test_a_disk_that_takes_no_key_changes_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity(tmp_path)
    change, first = KeyChange(identity, "us-east"), identity.public_key
    control = Control(change, True)
    change.want()
    with monkeypatch.context() as patched:
        disk = Disk(patched, 1, lambda: OSError(errno.ENOSPC, "full"))
        running = asyncio.create_task(change.run(control.send))
        await until(lambda: disk.calls > 2)
        assert (control.named, identity.public_key) == ([], first)
        assert same(Identity(tmp_path).key, identity.key)
    await until(lambda: identity.public_key != first)
    assert control.named == [identity.public_key]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_old_key_is_changed_by_itself(tmp_path: Path) -> None:
    identity = Identity(tmp_path)
    os.utime(tmp_path / "edge.key", (1, 1))
    change, first = KeyChange(identity, "us-east", days=30), identity.public_key
    control = Control(change, True)
    running = asyncio.create_task(change.run(control.send))
    await until(lambda: identity.public_key != first)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(control.named) == 1
