"""Arguments repeated in headers: found in a schema, and compared with the body."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_ingress.mcp.param_headers import first_mismatch, required_headers

REGION: dict[str, tuple[str, ...]] = {"region": ("region",)}


def asking(**headers: str) -> dict[str, Any]:
    properties = {name: {"x-mcp-header": header} for name, header in headers.items()}
    return {"type": "object", "properties": properties}


def broken_header(value: Any, header: str | bytes | None) -> str:
    """Return the header that does not repeat its argument."""
    raw = header if isinstance(header, bytes | None) else header.encode("latin-1")
    headers = {} if raw is None else {b"mcp-param-region": raw}
    return first_mismatch(REGION, {} if value is ... else {"region": value}, headers)


def test_a_schema_names_its_required_headers() -> None:
    assert required_headers(asking(region="Region", zone="X-Zone")) == {
        "region": ("region",),
        "x-zone": ("zone",),
    }


def test_a_header_may_name_a_nested_argument() -> None:
    schema = {"properties": {"where": asking(region="Region")}}
    assert required_headers(schema) == {"region": ("where", "region")}
    headers = {b"mcp-param-region": b"eu"}
    wanted = required_headers(schema)
    assert first_mismatch(wanted, {"where": {"region": "eu"}}, headers) == ""
    assert first_mismatch(wanted, {"where": "eu"}, headers) == "Mcp-Param-region"


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        [],
        {},
        {"properties": None},
        {"properties": []},
        {"properties": {"a": True}},
        {"properties": {"a": {"x-mcp-header": 5}}},
        {"items": asking(region="Region")},
        {"anyOf": [asking(region="Region")]},
    ],
)
def test_a_value_inside_a_list_requires_no_header(schema: Any) -> None:
    assert required_headers(schema) == {}


def test_a_deep_schema_is_read_to_a_limit() -> None:
    schema: dict[str, Any] = asking(region="Region")
    for _ in range(5000):
        schema = {"properties": {"a": schema}}
    assert required_headers(schema) == {}


def test_without_required_headers_any_request_is_valid() -> None:
    assert first_mismatch({}, {"region": "eu"}, {b"mcp-param-region": b"us"}) == ""


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("eu", "eu"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (42, "42"),
        (-7, "-7"),
        (7, "007"),
        (0, "-0"),
        ("42", "42"),
        (..., None),
        (None, None),
        ("zürich", "=?base64?esO8cmljaA==?="),
    ],
)
def test_a_header_equal_to_its_argument_is_accepted(value: Any, header: str | None) -> None:
    assert broken_header(value, header) == ""


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("eu", "us"),
        ("eu", None),
        ("eu", "EU"),
        (..., "eu"),
        (None, "null"),
        (True, "True"),
        (True, "1"),
        (1, "true"),
        (42, "43"),
        (42, "4 2"),
        (42, ""),
        (5, "--5"),
        (5, "-"),
        (5, "+5"),
        (5, "5_0"),
        (50, "5_0"),
        (5, "0x5"),
        (2, b"\xb2"),
        (5, "5" * 5000),
        ({"a": 1}, '{"a":1}'),
        (["eu"], "eu"),
        ("zürich", "=?base64?!!?="),
    ],
)
def test_a_header_that_differs_is_named(value: Any, header: str | bytes | None) -> None:
    assert broken_header(value, header) == "Mcp-Param-region"


@given(st.integers(-(2**70), 2**70), st.text(max_size=20))
def test_every_encoded_value_matches_and_no_header_makes_the_check_raise(
    number: int, text: str
) -> None:
    assert broken_header(number, str(number)) == ""
    sealed = base64.b64encode(text.encode()).decode()
    assert broken_header(text, f"=?base64?{sealed}?=") == ""
    assert broken_header(number, f"=?base64?{sealed}?=") in ("", "Mcp-Param-region")


@given(st.binary(max_size=30))
def test_any_bytes_in_a_header_are_compared_without_raising(raw: bytes) -> None:
    assert broken_header(5, raw) in ("", "Mcp-Param-region")
    assert broken_header("x", raw) in ("", "Mcp-Param-region")
