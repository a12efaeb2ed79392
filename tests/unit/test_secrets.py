"""The form of a key's secret."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.projects import secrets

modes = st.sampled_from(["live", "test"])
cells = st.integers(0, 62 * 62 - 1)
randoms = st.binary(min_size=secrets.RANDOM_BYTES, max_size=secrets.RANDOM_BYTES)
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@given(modes, cells, randoms)
@example("live", 0, bytes(secrets.RANDOM_BYTES))
@example("test", 62 * 62 - 1, b"\xff" * secrets.RANDOM_BYTES)
def test_what_was_made_is_read_again(mode: str, cell: int, random_bytes: bytes) -> None:
    secret = secrets.make(mode, cell, random_bytes)

    found = secrets.parse(secret)

    assert found is not None
    assert (found.mode, found.cell) == (mode, cell)
    assert found.hash == hashlib.sha256(secret.encode()).digest()


@given(modes, cells, randoms, st.data())
def test_one_wrong_letter_is_seen_without_asking_anyone(
    mode: str, cell: int, random_bytes: bytes, data: st.DataObject
) -> None:
    secret = secrets.make(mode, cell, random_bytes)
    place = data.draw(st.integers(len("vx_live_"), len(secret) - 1))
    letter = data.draw(st.sampled_from(LETTERS.replace(secret[place], "")))

    assert secrets.parse(secret[:place] + letter + secret[place + 1 :]) is None


@given(randoms, randoms)
def test_other_random_bytes_make_another_secret(one: bytes, two: bytes) -> None:
    assert (one == two) == (secrets.make("test", 0, one) == secrets.make("test", 0, two))


@given(st.text())
@example("vx_test_" + "0" * 41)
@example("vx_live_")
def test_nonsense_is_no_secret(text: str) -> None:
    assert secrets.parse(text) is None


def test_a_secret_cut_or_continued_is_none() -> None:
    secret = secrets.make("live", 7, bytes(range(secrets.RANDOM_BYTES)))
    assert [secrets.parse(t) for t in (secret[:-1], secret + "0", secret + "\n", " " + secret)] == [None] * 4


def test_a_secret_takes_enough_randomness() -> None:
    with pytest.raises(ValueError, match="24 random bytes"):
        secrets.make("test", 0, b"short")
