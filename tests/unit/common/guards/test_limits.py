"""Limits of the form of a document."""

from typing import Any

import msgspec
import pytest

from toolbus_common.guards.limits import exceeded, option_problems

BODY = b'{"a": [{"b": "see https://a.example and http:\\/\\/b.example"}], "c": 1}'


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"max_bytes": len(BODY)}, ()),
        ({"max_bytes": len(BODY) - 1}, ("max_bytes",)),
        ({"max_depth": 3}, ()),
        ({"max_depth": 2}, ("max_depth",)),
        ({"max_links": 2}, ()),
        ({"max_links": 1}, ("max_links",)),
        ({"max_texts": 4}, ()),
        ({"max_texts": 3}, ("max_texts",)),
        ({"max_depth": 0, "max_links": 0, "max_texts": 0}, ("max_depth", "max_links", "max_texts")),
    ],
)
def test_a_limit_is_exceeded_by_one_more(options: dict[str, Any], names: tuple[str, ...]) -> None:
    assert exceeded(options, BODY) == names


def test_structured_content_must_fit_the_output_schema() -> None:
    def fits(structured: bytes) -> bool:
        return structured == b'{"n":1}'

    options = {"output_schema": True}
    assert exceeded(options, b'{"content":[],"structuredContent":{"n":1}}', fits) == ()
    assert exceeded(options, b'{"content":[],"structuredContent":{"n":2}}', fits) == (
        "output_schema",
    )
    assert exceeded(options, b'{"content":[]}', fits) == ("output_schema",)
    assert exceeded(options, b"[]", fits) == ("output_schema",)
    assert exceeded(options, b'{"content":[]}', None) == ()
    assert exceeded({"output_schema": False}, b'{"content":[]}', fits) == ()


def test_a_document_of_any_depth_is_measured() -> None:
    assert exceeded({"max_depth": 50}, b"[" * 51 + b"]" * 51) == ("max_depth",)
    assert exceeded({"max_depth": 50}, b"[" * 100_000 + b"]" * 100_000) == ("max_depth",)
    assert exceeded({"max_depth": 50}, b"[" * 50 + b"]" * 50) == ()


def test_a_document_that_is_no_json_is_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        exceeded({"max_depth": 5}, b"{nonsense")


def test_an_empty_document_exceeds_nothing() -> None:
    assert exceeded({"max_bytes": 0, "max_depth": 0, "max_links": 0, "max_texts": 0}, b"") == ()


def test_unknown_options_are_named() -> None:
    problems = [*option_problems({"max_byte": 1, "max_links": -1, "output_schema": 1})]
    assert problems[0].startswith("unknown option 'max_byte' of limits; use max_bytes, max_depth")
    assert problems[1:] == [
        "option 'max_links' must be a whole number of at least 0",
        "option 'output_schema' must be true or false",
    ]
    assert len([*option_problems({})]) == 1
    assert [*option_problems({"max_bytes": 1})] == []
