"""The console's colours, in light and dark, against WCAG 2.1: text 4.5 to 1 (1.4.3), the border of a field and a bar 3 to 1 (1.4.11).

axe looks at the text of a page as it stands, not at borders nor at what is drawn. This looks at every pair that the styles make.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[2] / "app" / "console" / "assets"
GROUNDS = ("bg", "panel", "raised", "hover")
TEXT = [
    *((ink, ground) for ink in ("ink", "muted", "accent", "bad") for ground in GROUNDS),
    *((tone, f"{tone}-soft") for tone in ("good", "warn", "bad", "live", "rest", "accent")),
    *(("ink", f"{tone}-soft") for tone in ("rest", "accent", "good")), ("muted", "accent-soft"), ("muted", "good-soft"),
    ("accent-ink", "accent"), ("muted", "sea"), ("ink", "land"),
    *(("in-bar", bar) for bar in ("good", "bad", "accent", "s4", "s5", "s8")), ("ink", "s10"),
]  # fmt: skip
SHAPES = [
    *(("field", ground) for ground in ("bg", "panel", "raised")),
    *((shape, "panel") for shape in ("accent", "good", "warn", "bad", *(f"s{n}" for n in range(1, 11)))),
]


def colours(theme: str) -> dict[str, str]:
    selector = ":root" if theme == "light" else ':root[data-theme="dark"]'
    found: dict[str, str] = {}
    for name in ("console.css", "pages.css"):
        block = re.search(re.escape(selector) + r" \{(.*?)\}", (ASSETS / name).read_text(), re.DOTALL)
        assert block is not None, (name, selector)
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block[1]))
    return found


def luminance(colour: str) -> float:
    """WCAG's relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_to_be_read_and_seen_stands_out(theme: str) -> None:
    known = colours(theme)
    weak = [
        (*pair, round(contrast(known[pair[0]], known[pair[1]]), 2))
        for pairs, least in ((TEXT, 4.5), (SHAPES, 3.0))
        for pair in pairs
        if contrast(known[pair[0]], known[pair[1]]) < least
    ]
    assert weak == []


def test_dark_by_the_system_is_dark_by_choice() -> None:
    for name in ("console.css", "pages.css"):
        text = (ASSETS / name).read_text()
        by_system = re.search(r':root:not\(\[data-theme="light"\]\) \{(.*?)\}', text, re.DOTALL)
        by_choice = re.search(r':root\[data-theme="dark"\] \{(.*?)\}', text, re.DOTALL)
        assert by_system is not None and by_choice is not None
        assert by_system[1].split() == by_choice[1].split(), name
