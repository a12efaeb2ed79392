"""What lies in a region's Valkey opens where it was put, with the keys that are held, and nowhere else."""

from __future__ import annotations

import pytest

from regions.wire.keeping import Unopened, key_of, opening, sealing

KEYS = {"fk_old": bytes(32), "fk_new": bytes([1]) * 32}
PLAIN = b'[{"role":"caller","text":"my account is 12345"}]'

seal = sealing(lambda: ("fk_new", KEYS["fk_new"]))
open_ = opening(lambda: KEYS)


def test_what_was_said_cannot_be_read_in_it() -> None:
    sealed = seal(PLAIN, "tail:call_1")
    assert b"12345" not in sealed
    assert (open_(sealed, "tail:call_1"), key_of(sealed)) == (PLAIN, "fk_new")


def test_no_two_sealings_are_alike() -> None:
    assert seal(PLAIN, "tail:call_1") != seal(PLAIN, "tail:call_1")


def test_a_key_that_is_no_longer_the_newest_still_opens() -> None:
    sealed = sealing(lambda: ("fk_old", KEYS["fk_old"]))(PLAIN, "p")
    assert open_(sealed, "p") == PLAIN


@pytest.mark.parametrize(
    "sealed",
    [
        b"", b"\0", b"fk_new", b"fk_new\0", b"fk_new\0short", PLAIN, b"\xff\0" + bytes(40), b"k" * 70 + b"\0" + bytes(40),
        seal(PLAIN, "tail:call_2"), seal(PLAIN, "tail:call_1")[:-1], b"fk_old" + seal(PLAIN, "tail:call_1")[6:],
        sealing(lambda: ("fk_unknown", bytes(32)))(PLAIN, "tail:call_1"),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_was_not_sealed_for_this_place_does_not_open(sealed: bytes) -> None:
    with pytest.raises(Unopened):
        open_(sealed, "tail:call_1")
