"""Strict JSON: accepted only when every reader would read the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.strict_json import MAX_DEPTH, StrictJSONError, dump, members, parse, typed

values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(values)
def test_serialized_json_is_parsed_unchanged(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(values)
def test_forwarded_json_means_what_was_received(value: Any) -> None:
    text = json.dumps(value, indent=1).encode()
    assert json.loads(dump(parse(text))) == value


@given(st.binary(max_size=64))
def test_any_bytes_are_parsed_or_rejected(text: bytes) -> None:
    try:
        parse(text)
    except StrictJSONError:
        return


@pytest.mark.parametrize(
    "text",
    [
        b'{"method":"tools/list","method":"tools/call"}',
        b'{"a":{"b":1,"b":1}}',
        b'[{"a":1},{"a":1,"\\u0061":2}]',
        b'{ "a" : 1, "a" : 2 }',
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "b": {"c": ": ", "c": ": "}}',
    ],
)
def test_a_repeated_name_is_rejected_anywhere(text: bytes) -> None:
    with pytest.raises(StrictJSONError, match="repeated"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        b"NaN", b"Infinity", b"[-Infinity]", b'{"a":NaN}', b"", b"{", b'{"a":1}x', b"'a'",
        b'"\xff"', b'"\\ud800"', b"01", b"1.", b"[1,]", b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_invalid_json_is_rejected(text: bytes) -> None:
    with pytest.raises(StrictJSONError):
        parse(text)


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 1_000, 100_000])
def test_nesting_is_bounded(depth: int) -> None:
    text = b"[" * depth + b"]" * depth
    if depth <= MAX_DEPTH:
        parse(text)
    else:
        with pytest.raises(StrictJSONError, match="nested deeper"):
            parse(text)


def test_many_siblings_are_not_depth() -> None:
    assert len(parse(json.dumps([{}] * 500).encode())) == 500


def test_integers_beyond_64_bits_survive() -> None:
    text = b'{"n":123456789012345678901234567890}'
    assert dump(parse(text)) == text


UNREADABLE = (
    b'{"a": "\xff"}', b'{"\xff": 1}', b'{"a": "\\ud800"}', b'{"a": 1, "a": 2}', b"[]", b"[" * 9999,
    b'{"a": ' + b"9" * 9999 + b"}", b'{"a": NaN}', '{"a": "\ud800"}', b"", b"\x00",
)  # fmt: skip


@pytest.mark.parametrize("text", UNREADABLE)
def test_an_invalid_object_is_one_specific_error(text: bytes | str) -> None:
    with pytest.raises(StrictJSONError):
        members(text)


def test_a_document_of_another_type_is_the_same_error() -> None:
    assert typed('{"a": "b"}', dict[str, str]) == {"a": "b"}
    with pytest.raises(StrictJSONError, match="does not have the expected form"):
        typed(b'{"a": 1}', dict[str, str])


def test_a_repeated_name_is_found_at_once_among_very_many() -> None:
    names = 100_000  # a search that compares all pairs would take an hour
    text = b"{%b,%b}" % (b",".join(b'"n%d":1' % each for each in range(names)), b'"n0":2')
    with pytest.raises(StrictJSONError, match="'n0' is repeated"):
        parse(text)
