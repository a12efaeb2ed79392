"""What is struck out of content before it is stored: digits, card numbers, keys pressed, patterns of the project's own. Pure.

Decides what a pattern may say, and what of an event's data is looked at. A pattern is a sequence of characters, classes and
bounded repetitions, without groups or alternatives; every repetition is possessive, so nothing is ever tried twice, and a text
costs at most its length times what the pattern can span (`SPAN_MAX`).

Which rules hold for a call is known from when it was created, so that an event which is sent again, to whichever instance, comes
out the same: new rules hold for calls that are created `LEAD_MS` after them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

RULES_MAX = 16
PATTERN_CHARS_MAX = 128
SPAN_MAX = 128
"""Of what one pattern can match, in characters."""
LEAD_MS = 10_000
KEPT_MS = 26 * 3600 * 1000
"""Longer than a call that was created under rules of before can last."""
CARD_DIGITS = range(13, 20)
CARD_CHARS = 16
KEPT_NAMES = frozenset({"id", "key", "name", "role"})
"""By which others find what is said; they are no content."""

_DIGITS = re.compile(r"[0-9](?:[ .\-]?[0-9])*+")
_GROUP = re.compile(r"[0-9]+")
_TRAILING = re.compile(r"[0-9](?:[ .\-]?[0-9])*+[ .\-]?$")
_CLASS = r"\[\^?(?:\\[dws\\\]\-^]|[^\\\]\[])+\]"
_ATOM = re.compile(
    rf"(\\[dws.\\+*?()\[\]{{}}|^$/\-]|{_CLASS}|[^\\\[\](){{}}|^$*+?])(\?|\{{[0-9]{{1,3}}(?:,[0-9]{{1,3}})?\}})?"
)


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`kind`: ``digits``: at least `min` of them, with single spaces, dots or dashes between; ``card``: 13 to 19 digits whose
    checksum (Luhn) is right; ``keys``: what the caller presses; ``pattern``. `name` stands in the place of what is struck out."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    kind: Literal["digits", "card", "keys", "pattern"]
    min: Annotated[int, Meta(ge=1, le=64)] = 6
    pattern: Annotated[str, Meta(max_length=PATTERN_CHARS_MAX)] = ""


class Since(msgspec.Struct, frozen=True, kw_only=True):
    """Rules for calls created at `ms` or later."""

    ms: int
    rules: list[Rule]


class BadPattern(ValueError):
    """A pattern that is not taken; the text says why."""


def compiled(pattern: str) -> re.Pattern[str]:
    """Raises `BadPattern`."""
    parts: list[str] = []
    at = span = least = 0
    while at < len(pattern):
        found = _ATOM.match(pattern, at)
        if found is None:
            raise BadPattern(
                f"character {at + 1} is not understood: characters, classes like [a-z] and \\d, and ? or {{m,n}} behind them"
            )
        atom, times = found.groups()
        low, high = _times(times)
        span, least, at = span + high, least + low, found.end()
        parts.append(atom if times is None else f"{atom}{{{low},{high}}}+")
    if not least or span > SPAN_MAX:
        raise BadPattern(f"it must match at least one character, and at most {SPAN_MAX}")
    try:
        return re.compile("".join(parts))
    except re.error as error:
        raise BadPattern(str(error)) from None


def _times(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    if text == "?":
        return 0, 1
    low, _, high = text[1:-1].partition(",")
    if int(high or low) < int(low):
        raise BadPattern(f"{text}: the second number is the greater one")
    return int(low), int(high or low)


class Redactor:
    """The rules of one project for one call."""

    def __init__(self, rules: list[Rule]) -> None:
        self._texts: list[Callable[[str], str]] = [_striking(r) for r in rules if r.kind != "keys"]
        self._keys = next((mark(r.name) for r in rules if r.kind == "keys"), None)
        numbers = [r for r in rules if r.kind in ("digits", "card")]
        self._trailing = mark(numbers[0].name) if numbers else None

    def content(self, type_: str, data: bytes) -> bytes:
        """An event's data with what the rules name struck out; the same bytes where that is nothing."""
        try:
            found = msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return data
        if type_ == "dtmf.received":
            if self._keys is None or not isinstance(found, dict):
                return data
            struck: Any = {name: self._keys if name == "digit" else value for name, value in found.items()}
        else:
            struck = self._struck(found)
            if type_ == "transcript.partial" and self._trailing is not None and isinstance(struck, dict):
                # a number that is still being said
                struck = {
                    n: _TRAILING.sub(self._trailing, v) if isinstance(v, str) else v
                    for n, v in struck.items()
                }
        return data if struck == found else msgspec.json.encode(struck)

    def _struck(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            for strike in self._texts:
                value = strike(value)
            return value
        if isinstance(value, bool) or value is None or depth > 64:
            return value
        if isinstance(value, int | float):
            text = str(value)
            struck = self._struck(text)
            return value if struck == text else struck
        if isinstance(value, list):
            return [self._struck(v, depth + 1) for v in value]
        # names can be said by a backend, too
        return {
            self._struck(n): v if n in KEPT_NAMES and not depth else self._struck(v, depth + 1)
            for n, v in value.items()
        }


def mark(name: str) -> str:
    return f"[redacted:{name}]"


def _striking(rule: Rule) -> Callable[[str], str]:
    if rule.kind == "pattern":
        pattern, shown = compiled(rule.pattern), mark(rule.name)
        return lambda text: pattern.sub(shown, text)
    if rule.kind == "card":
        return lambda text: _DIGITS.sub(lambda m: _without_cards(m.group(), mark(rule.name)), text)
    return lambda text: _DIGITS.sub(
        lambda m: mark(rule.name) if _count(m.group()) >= rule.min else m.group(), text
    )


def _count(text: str) -> int:
    return sum(c.isdigit() for c in text)


def _without_cards(text: str, shown: str) -> str:
    """Of a row of digits, those of its groups that together are a card number, the longest first; a row without separators is one
    group, and where it is longer than any card number is looked through."""
    groups = list(_GROUP.finditer(text))
    for first, group in enumerate(groups):
        taken = ""
        best = None
        for last in groups[first : first + CARD_DIGITS.stop]:
            taken += last.group()
            if len(taken) >= CARD_DIGITS.stop:
                break
            if len(taken) in CARD_DIGITS and luhn(taken):
                best = last.end()
        if best is None and len(group.group()) >= CARD_DIGITS.stop and _holds_card(group.group()):
            best = group.end()
        if best is not None:
            return text[: group.start()] + shown + _without_cards(text[best:], shown)
    return text


def _holds_card(digits: str) -> bool:
    return any(luhn(digits[i : i + CARD_CHARS]) for i in range(len(digits) - CARD_CHARS + 1))


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    digits = [int(c) for c in text]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def changed(history: list[Since], rules: list[Rule], now_ms: int) -> list[Since]:
    """With new rules from now on; what no call that lives can need is left out."""
    fresh = Since(ms=now_ms + LEAD_MS, rules=rules)
    kept = [s for s in history if s.ms < fresh.ms]
    needed = next((i for i in reversed(range(len(kept))) if kept[i].ms < now_ms - KEPT_MS), 0)
    return [*kept[needed:], fresh]


_history = msgspec.json.Decoder(list[Since])


def history_of(settings: str | None) -> list[Since]:
    """As it stands in a project's settings, under ``redaction``."""
    return _history.decode(settings) if settings else []


@lru_cache(maxsize=1_000)
def _redactors(settings: str) -> list[tuple[int, Redactor | None]]:
    return [(s.ms, Redactor(s.rules) if s.rules else None) for s in history_of(settings)]


def redactor_for(settings: str | None, created_ms: int) -> Redactor | None:
    """Of a call that was created then; None where nothing is struck out."""
    if not settings:
        return None
    return next((r for ms, r in reversed(_redactors(settings)) if ms <= created_ms), None)
