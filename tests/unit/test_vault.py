"""Keys under keys, without a database."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from app.erasure import masters
from app.vault import MASTER_KEY_FILE, LocalKeys, ProjectKey, VaultError


def test_a_calls_key_opens_for_its_call_and_project_alone() -> None:
    secret, call, other = os.urandom(32), uuid4(), uuid4()
    project = ProjectKey(uuid4(), secret)
    key = project.new_call(call)
    sealed = key.seal(b"said", other)

    again = ProjectKey(uuid4(), secret).call(call, key.wrapped)  # another instance, after a restart
    assert again.open(sealed, other) == b"said"
    assert (again.hash(b"a", b"b"), again.snapshot_key) == (key.hash(b"a", b"b"), key.snapshot_key)
    assert project.new_call(call).hash(b"a", b"b") != key.hash(b"a", b"b")
    for wrong in (
        lambda: project.call(other, key.wrapped),
        lambda: ProjectKey(uuid4(), os.urandom(32)).call(call, key.wrapped),
    ):
        with pytest.raises(VaultError):
            wrong()
    with pytest.raises(VaultError):
        again.open(sealed, call)


def test_a_new_master_wraps_the_old_one_opens_and_what_is_derived_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    running = LocalKeys.from_file(tmp_path / MASTER_KEY_FILE)
    (elsewhere / MASTER_KEY_FILE).write_bytes((tmp_path / MASTER_KEY_FILE).read_bytes())
    distant = LocalKeys.from_file(elsewhere / MASTER_KEY_FILE)
    before, derived = running.wrap(b"secret", "a"), running.derive(b"p")

    path, made = masters.prepare(tmp_path)
    assert made and not masters.prepare(tmp_path)[1]
    (elsewhere / path.name).write_bytes(path.read_bytes())
    assert running.is_newest(running.wrap(b"x", "a"), "a") and masters.turn(tmp_path, datetime.now(UTC))

    after = running.wrap(b"secret", "a")  # without a restart
    assert running.is_newest(after, "a") and not running.is_newest(before, "a")
    assert [running.unwrap(w, "a") for w in (before, after)] == [b"secret"] * 2
    assert distant.unwrap(after, "a") == b"secret"  # which has not turned yet
    assert LocalKeys.from_file(tmp_path / MASTER_KEY_FILE).derive(b"p") == derived
    masters.remove(masters.old_keys(tmp_path))
    with pytest.raises(VaultError):
        LocalKeys.from_file(tmp_path / MASTER_KEY_FILE).unwrap(before, "a")
