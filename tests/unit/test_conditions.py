"""Which version `If-Match` names: what a client can send, and no answer but a refusal."""

from __future__ import annotations

import pytest

from app.conditions import NOBODYS, any_version, version_named
from app.errors import PreconditionRequired


@pytest.mark.parametrize(
    ("said", "version"), [('"7"', 7), ("7", 7), (' "0" ', 0), ('"999999999"', 999_999_999)]
)
def test_an_etag_of_ours_names_its_version(said: str, version: int) -> None:
    assert version_named(said, "it") == version


@pytest.mark.parametrize(
    "said", ["", '""', "*", 'W/"7"', '"1", "2"', "-1", "²", "٣", "1e3", "0x1", "9" * 10, "9" * 5_000, "\x00"]
)
def test_what_is_no_etag_of_ours_is_nobodys(said: str) -> None:
    assert version_named(said, "it") == NOBODYS


def test_none_is_asked_for() -> None:
    with pytest.raises(PreconditionRequired, match="Changing it needs If-Match"):
        version_named(None, "it")


def test_only_a_star_is_any_version() -> None:
    assert [any_version(said) for said in ("*", " * ", '"*"', '"1"', "", None)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
