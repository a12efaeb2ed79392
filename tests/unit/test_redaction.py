"""What is struck out, what is left, and that no pattern can make anybody wait."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from app.erasure.redaction import LEAD_MS, BadPattern, Redactor, Rule, changed, compiled, redactor_for

CARD = "4111 1111 1111 1111"


def struck(text: Any, *rules: Rule, type_: str = "turn.ended") -> Any:
    data = msgspec.json.encode({"role": "caller", "text": text})
    return msgspec.json.decode(Redactor(list(rules)).content(type_, data))["text"]


DIGITS = Rule(name="number", kind="digits", min=5)
CARDS = Rule(name="card", kind="card")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"it is {CARD}.", "it is [redacted:card]."),
        ("4111-1111-1111-1111 and 4111 1111 1111 1112", "[redacted:card] and 4111 1111 1111 1112"),
        (f"7 {CARD}", "7 [redacted:card]"),
        (4111111111111111, "[redacted:card]"),
        ({"deep": [CARD]}, {"deep": ["[redacted:card]"]}),
        ({CARD: True}, {"[redacted:card]": True}),
    ],
)
def test_card_numbers_are_known_by_their_checksum(text: Any, left: Any) -> None:
    assert struck(text, CARDS) == left


def test_digits_patterns_and_keys() -> None:
    assert struck("1234, 12345 and 1.2.3.4.5-6", DIGITS) == "1234, [redacted:number] and [redacted:number]"
    mail = Rule(name="mail", kind="pattern", pattern=r"[a-z0-9.]{1,40}@[a-z]{1,20}\.[a-z]{2,3}")
    assert struck("write to jo.li@example.org now", mail) == "write to [redacted:mail] now"
    greedy = Rule(name="g", kind="pattern", pattern="a{1,4}ab")
    assert struck("aaab", greedy) == "aaab"  # possessive: it gives nothing back
    keys = Redactor([Rule(name="pin", kind="keys")])
    assert keys.content("dtmf.received", b'{"digit":"7"}') == b'{"digit":"[redacted:pin]"}'
    assert Redactor([DIGITS]).content("dtmf.received", b'{"digit":"7"}') == b'{"digit":"7"}'
    named = Redactor([DIGITS]).content(
        "tool.called", b'{"id":"123456","key":"123456","arguments":{"id":"123456"}}'
    )
    assert named == b'{"id":"123456","key":"123456","arguments":{"id":"[redacted:number]"}}'


def test_a_number_that_is_still_being_said_is_not_shown() -> None:
    assert struck("it is 4111 11", CARDS, type_="transcript.partial") == "it is [redacted:card]"
    assert struck("it is 4111 11 ok", CARDS, type_="transcript.partial") == "it is 4111 11 ok"


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a*",
        "a+",
        "(a)",
        "a|b",
        "^a",
        "a$",
        "[",
        "[a",
        "a{2",
        "a{3,2}",
        "a{200}",
        "a?",
        "\\1",
        "(?i)a",
        "a{1,64}b{1,64}c",
        "[z-a]",
    ],
)
def test_what_could_take_long_or_match_nothing_is_no_pattern(pattern: str) -> None:
    with pytest.raises(BadPattern):
        compiled(pattern)


def test_the_worst_pattern_over_the_longest_text_is_quick() -> None:
    worst = Rule(name="w", kind="pattern", pattern="a{0,32}a{0,32}a{0,32}a{0,31}b")
    began = time.process_time()
    assert struck("a" * 32_000, worst, DIGITS, CARDS) == "a" * 32_000
    assert struck("1" * 32_000, CARDS, DIGITS) is not None
    assert time.process_time() - began < 20  # quadratic would be hours


def test_rules_hold_for_calls_that_are_created_after_them() -> None:
    history = changed([], [DIGITS], 1_000)
    history = changed(history, [CARDS], 100_000)
    text = msgspec.json.encode(history).decode()
    data = b'{"text":"12345"}'
    shown = [
        r.content("turn.ended", data) if (r := redactor_for(text, ms)) else None
        for ms in (0, 1_000 + LEAD_MS, 100_000 + LEAD_MS)
    ]
    assert shown == [None, b'{"text":"[redacted:number]"}', data]
    assert len(changed(history, [], 1 << 40)) == 2 and redactor_for(None, 5) is None
