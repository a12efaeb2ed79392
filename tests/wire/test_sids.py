"""The sids that backends get: whose they are, and on which socket they were given."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from regions.wire.ids import CALL, PROJECT, encode, uuid7
from regions.wire.sids import account_sid, call_sid, of_epoch, read_call_sid, socket_number

IDS = st.builds(uuid7, st.integers(0, (1 << 48) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, 4095))


@given(IDS, st.integers(1, 1_000), st.integers(0, 100))
def test_a_call_sid_gives_the_call_and_the_socket_back(call: object, epoch: int, opened: int) -> None:
    socket = socket_number(epoch, opened)
    text = call_sid(encode(CALL, call), socket)  # type: ignore[arg-type]
    assert re.fullmatch("CA[0-9a-f]{32}", text)
    assert read_call_sid(text) == (call, socket)
    assert of_epoch(socket, epoch) and not of_epoch(socket, epoch + 1)


@given(IDS)
def test_no_two_sockets_of_a_call_near_each_other_have_the_same_sid(call: object) -> None:
    text = encode(CALL, call)  # type: ignore[arg-type]
    given_out = {call_sid(text, socket_number(e, n)) for e in range(1, 9) for n in range(8)}
    assert len(given_out) == 64


@given(st.text(max_size=40))
def test_what_is_no_call_sid_is_none(text: str) -> None:
    found = read_call_sid(text)
    assert found is None or call_sid(encode(CALL, found.call), found.socket) == text


def test_the_first_socket_of_a_call() -> None:
    call = uuid7(0x0123456789AB, 0x1122334455667788, 5)
    assert call.hex == "0123456789ab7005" + "9122334455667788"
    assert call_sid(encode(CALL, call), socket_number(1, 0)) == "CA0123456789ab2005" + "1122334455667788"
    assert account_sid(encode(PROJECT, call)) == "AC" + call.hex


def test_an_id_that_is_none_of_ours_has_a_sid_all_the_same() -> None:
    assert call_sid("call_1", 9).startswith("CA") and account_sid("prj_1").startswith("AC")
