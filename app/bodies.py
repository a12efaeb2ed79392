"""What a request body must be: JSON by its own word, not too deep, without U+0000, each name once, of the types that the
handler names.

PostgreSQL stores no U+0000. A string that has one is refused here, before it can share a statement with the requests of
others. The raw character is no JSON at all, so only its escape is looked for.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from litestar import Request

from app.errors import BadRequest, FieldError, Invalid, VoxplaneError
from app.pointers import escaped, invalid_from

_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class MalformedJson(BadRequest):
    code, title = "malformed_json", "The body is not JSON"
    fix = "Send a JSON object with `Content-Type: application/json`."


class UnsupportedMediaType(VoxplaneError):
    code, status, title = "unsupported_media_type", 415, "The body is of another type"
    fix = "Send JSON with `Content-Type: application/json`."


REPEATED_MAX = 20
UNFIT = "voxplane.unfit"
"""Where in the scope of a request stands what is wrong with its body."""


class _Unfit:
    """What no handler takes."""


class JsonRequest(Request[Any, Any, Any]):
    """A body as the handler's own type.

    Raises `UnsupportedMediaType`, `MalformedJson` or `Invalid` where the framework would go on.
    """

    async def json(self) -> Any:
        check_type(self.headers.get("content-type"), self.headers.get("content-encoding"))
        body = await self.body()
        try:
            if may_have_nul(body):
                refuse_nul(msgspec.json.decode(body))
            found = msgspec.json.decode(body, type=self._wanted())
            if repeats_a_name(body):
                return self._unfit(repeated_names(body))
            return found
        except RecursionError:
            raise MalformedJson("The body is nested too deeply.") from None
        except msgspec.ValidationError as error:
            return self._unfit(invalid_from(str(error)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise MalformedJson from None

    def _unfit(self, why: Invalid) -> _Unfit:
        """Who may not ask is told that first: the framework finds this unfit after it has resolved who is asking."""
        self.scope[UNFIT] = why  # type: ignore[literal-required]
        return _Unfit()

    def _wanted(self) -> Any:
        """What the handler takes. Read here, strictly: the framework itself would take ``"5"`` for a number."""
        field = self.route_handler.parsed_data_field
        return Any if field is None else field.annotation


def may_have_nul(body: bytes) -> bool:
    return b"\\u0000" in body and _ESCAPED_NUL.search(body) is not None


def repeats_a_name(body: bytes) -> bool:
    """Does an object of this well-formed JSON have a name twice? Decoders take one of the two and say nothing. Raises
    `RecursionError` where it is nested too deeply."""
    try:
        _look_at_names(body.decode())
    except _RepeatedError:
        return True
    return False


class _RepeatedError(Exception):
    """An object has a name twice."""


def _names(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise _RepeatedError


# numbers are left as they stand: they are not what is looked at, and some are too long to be read
_look_at_names = json.JSONDecoder(
    object_pairs_hook=_names, strict=False, parse_int=str, parse_float=str
).decode


class _Object(dict[str, Any]):
    """One of a body, with the names that it has more than once."""

    repeated: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        made.repeated = tuple(sorted({name for name in names if names.count(name) > 1}))
    return made


def repeated_names(body: bytes) -> Invalid:
    """What to answer to a body that `repeats_a_name`: each name that stands twice, by its pointer."""
    faults: list[FieldError] = []
    waiting: list[tuple[str, Any]] = [("", json.loads(body, object_pairs_hook=_object))]
    while waiting:
        pointer, found = waiting.pop()
        if isinstance(found, _Object):
            waiting += [(f"{pointer}/{escaped(key)}", inner) for key, inner in found.items()]
            faults += [
                FieldError(pointer=f"{pointer}/{escaped(key)}", detail="stands more than once")
                for key in found.repeated
            ]
        elif isinstance(found, list):
            waiting += [(f"{pointer}/{i}", inner) for i, inner in enumerate(found)]
    return Invalid(
        "An object of the body has a name twice.",
        fix="Send each name once in an object.",
        errors=sorted(faults, key=lambda f: f.pointer)[:REPEATED_MAX],
    )


def check_type(content_type: str | None, encoding: str | None = None) -> None:
    """A body that does not say what it is counts as JSON."""
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("Bodies are read as they are.", fix="Send JSON without Content-Encoding.")
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
