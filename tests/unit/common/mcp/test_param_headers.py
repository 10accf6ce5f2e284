"""Headers that repeat arguments: what every sender and reader of them shares."""

from typing import Any

import pytest

from toolbus_common.mcp.param_headers import (
    PREFIX,
    RAW_PREFIX,
    annotated,
    decoded,
    encoded,
    text_of,
    value_at,
)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("eu", "eu"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (42, "42"),
        (-7, "-7"),
        (42.0, "42"),
        (1.5, "1.5"),
        (None, None),
        ([1], None),
        ({"a": 1}, None),
    ],
)
def test_an_argument_is_repeated_as_text(argument: Any, text: str | None) -> None:
    assert text_of(argument) == text


@pytest.mark.parametrize("text", ["eu", " padded ", "né", "=?base64?ZXU=?=", "", "a\r\nb"])
def test_an_encoded_text_is_decoded_to_itself(text: str) -> None:
    value = encoded(text)
    assert value.isascii()
    assert not set("\r\n") & set(value)
    assert decoded(value.encode()) == text


def test_an_http_server_passes_the_prefix_on_in_lower_case() -> None:
    assert PREFIX.encode().lower() == RAW_PREFIX


def test_annotations_are_found_with_the_path_of_their_argument() -> None:
    where = {"properties": {"region": {"x-mcp-header": "Region"}, "other": {"type": "string"}}}
    schema = {"properties": {"where": where, "days": {"x-mcp-header": "Days"}}}
    assert dict(annotated(schema)) == {"Days": ("days",), "Region": ("where", "region")}
    assert value_at({"where": {"region": "eu"}}, ("where", "region")) == "eu"
    assert value_at({"where": "nowhere"}, ("where", "region")) is None
