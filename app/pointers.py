"""Where in a body a fault is: what the decoder says, as an RFC 6901 JSON pointer and a sentence. Pure."""

from __future__ import annotations

import re

from app.errors import FieldError, Invalid

_PATH = re.compile(r"\s*-? ?at `(?:key` in `)?\$((?:\.|\[)[^`]*)?`")
_UNKNOWN = re.compile(r"unknown field `([^`]{1,64})`")
_VALUE = re.compile(r"(Invalid (?:enum )?value) '.*", re.DOTALL)
"""What was sent is not sent back: an answer is kept and shown by others."""
_SEGMENT = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def escaped(name: str) -> str:
    """One reference token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def pointer_of(text: str) -> tuple[str, str]:
    """A msgspec message as (JSON pointer, detail): ``Expected `int` - at `$.a[0]``` → ("/a/0", "Expected `int`")."""
    found = _PATH.search(text)
    if found is None:
        return "", text
    return pointer(found.group(1) or ""), _PATH.sub("", text).strip()


def pointer(path: str) -> str:
    """``.a[0].b`` as ``/a/0/b``; msgspec writes ``[...]`` for a value of a map, which names no one."""
    segments = [(m.group(1) or m.group(2)) for m in _SEGMENT.finditer(path)]
    return "".join("/" + escaped(s) for s in segments if s != "...")


def fault(text: str, within: str = "") -> FieldError:
    """What msgspec says of a value at `within`; an unknown field is pointed at by its own name."""
    where, detail = pointer_of(text)
    where = within if within and not where else where
    detail = _VALUE.sub(r"\1", detail)
    if (unknown := _UNKNOWN.search(detail)) is not None:
        where += "/" + escaped(unknown.group(1))
    return FieldError(pointer=where, detail=detail)


def invalid_from(text: str) -> Invalid:
    return Invalid("The body does not fit.", errors=[fault(text)])
