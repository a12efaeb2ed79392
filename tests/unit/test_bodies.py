"""What a body must be before its shape is looked at, and how faults are pointed at."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import bodies, pointers
from app.calls.shapes import CreateCall
from app.errors import Invalid

texts = st.text(alphabet=st.sampled_from('\\"u0\0a'), max_size=12)
documents = st.recursive(
    texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


@given(documents)
def test_the_quick_look_finds_u0000_exactly_where_it_is(document: object) -> None:
    body = json.dumps(document).encode()

    found = bodies._ESCAPED_NUL.search(body) is not None

    assert found == ("\0" in repr_of_strings(document))


def repr_of_strings(value: object) -> str:
    """Every string of the document, one after another."""
    if isinstance(value, dict):
        return "".join(k + repr_of_strings(v) for k, v in value.items())
    if isinstance(value, list):
        return "".join(map(repr_of_strings, value))
    return str(value)


def test_every_string_with_u0000_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        bodies.refuse_nul({"a": ["x", "y\0"], "b/c": {"d~": "\0"}, "e": "fine"})
    assert [e.pointer for e in refused.value.errors] == ["/a/1", "/b~1c/d~0"]


names = st.sampled_from(["a", "b", ":", ",", '"', "\\", "{", "}", "\u00e9", "\\u0061", ""])
written = st.recursive(
    st.one_of(names.map(json.dumps), st.just("1")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]"),
        st.lists(st.tuples(names, st.booleans(), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{json.dumps(n, ensure_ascii=a)} : {v}" for n, a, v in pairs) + "}"
        ),
    ),
)


@given(written)
def test_a_name_that_stands_twice_in_one_object_is_found_and_no_other(text: str) -> None:
    twice = False

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal twice
        twice |= len(dict(pairs)) < len(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    assert bodies.repeats_a_name(text.encode()) == twice
    assert bool(bodies.repeated_names(text.encode()).errors) == twice


def test_every_name_that_stands_twice_is_named() -> None:
    found = bodies.repeated_names(b'{"a":[{"b/c":1,"x":2,"b\\/c":3}],"d":{},"d":{"e":1,"e":2}}')
    assert [e.pointer for e in found.errors] == ["/a/0/b~1c", "/d", "/d/e"]


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "Application/JSON", 'application/json; charset="UTF-8"', "application/problem+json"],
)  # fmt: skip
def test_json_by_its_own_word_is_taken(content_type: str | None) -> None:
    bodies.check_type(content_type)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/msgpack", "json",
     "application/json; charset=utf-16", "application/jsonp", "text/html+json"],
)  # fmt: skip
def test_another_type_is_refused(content_type: str) -> None:
    with pytest.raises(bodies.UnsupportedMediaType):
        bodies.check_type(content_type)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"agent":{"url":5}}', "/agent/url"),
        (b'{"agent":{"url":"x"},"metadata":{"k":5}}', "/metadata"),
        (b'{"agent":{"url":"x"},"metadata":{"' + b"k" * 65 + b'":"v"}}', "/metadata"),
        (b'{"agent":{"url":"x"},"latencies":[{"region":"us-east","rtt_ms":1},{"region":"US","rtt_ms":1}]}',
         "/latencies/1/region"),
        (b"[]", ""),
    ],
)  # fmt: skip
def test_the_place_that_msgspec_names_becomes_a_pointer(body: bytes, pointer: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(body, type=CreateCall)

    found, detail = pointers.pointer_of(str(refused.value))

    assert found == pointer
    assert detail.startswith("Expected")
    assert "$" not in detail.replace("]{1,30}$", "")
