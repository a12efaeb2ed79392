"""What a request body must be before its shape is looked at: JSON by its own word, not too deep, without U+0000.

PostgreSQL stores no U+0000. A string that has one is refused here, before it can share a statement with the requests of
others. The raw character is no JSON at all, so only its escape is looked for.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Request

from app.errors import BadRequest, FieldError, Invalid, VoxplaneError

_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class MalformedJson(BadRequest):
    code, title = "malformed_json", "The body is not JSON"
    fix = "Send a JSON object with `Content-Type: application/json`."


class UnsupportedMediaType(VoxplaneError):
    code, status, title = "unsupported_media_type", 415, "The body is of another type"
    fix = "Send JSON with `Content-Type: application/json`."


class JsonRequest(Request[Any, Any, Any]):
    """Raises `UnsupportedMediaType`, `MalformedJson` or `Invalid` where the framework would go on."""

    async def json(self) -> Any:
        check_type(self.headers.get("content-type"))
        body = await self.body()
        try:
            if b"\\u0000" in body and _ESCAPED_NUL.search(body) is not None:
                refuse_nul(msgspec.json.decode(body))
            return await super().json()
        except RecursionError:
            raise MalformedJson("The body is nested too deeply.") from None
        except msgspec.DecodeError:
            raise MalformedJson from None


def check_type(content_type: str | None) -> None:
    """A body that does not say what it is counts as JSON."""
    if content_type is None:
        return
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType("The body is not declared as JSON.")
    if "charset=" in charset and "charset=utf-8" not in charset:
        raise UnsupportedMediaType("JSON is UTF-8, and this says otherwise.")


def refuse_nul(value: Any) -> None:
    """Raises `Invalid` that names every string with U+0000 in it."""
    faults, waiting = [], [("", value)]
    while waiting:
        pointer, found = waiting.pop()
        if isinstance(found, dict):
            waiting += [(f"{pointer}/{escaped(key)}", inner) for key, inner in found.items()]
            faults += [pointer for key in found if "\0" in key]
        elif isinstance(found, list):
            waiting += [(f"{pointer}/{i}", inner) for i, inner in enumerate(found)]
        elif isinstance(found, str) and "\0" in found:
            faults.append(pointer)
    if faults:
        detail = "contains the character U+0000, which cannot be stored"
        raise Invalid(
            "The request does not fit.",
            errors=[FieldError(pointer=p.replace("\0", ""), detail=detail) for p in sorted(set(faults))],
        )


def escaped(name: str) -> str:
    """One reference token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
