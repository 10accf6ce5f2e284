"""Arguments become requests in OpenAPI's styles, and never change another part of the request."""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from toolbus_common.openapi import Operation, Parameter, Scheme, translated
from toolbus_executor.transport.http1 import Head
from toolbus_executor.transport.redirects import redirect_target
from toolbus_executor.upstreams.openapi.http import bytes_of
from toolbus_executor.upstreams.openapi.parameter_encoding import (
    ArgumentError,
    in_header,
    in_path,
    in_query,
)
from toolbus_executor.upstreams.openapi.request_builder import Request, request_of
from toolbus_executor.upstreams.openapi.security import Credentials

NONE = Credentials({}, {}, {})
LIST, OBJECT = ["blue", "black"], {"R": 100, "G": 200}


def parameter(place: str, style: str, *, explode: bool, **more: Any) -> Parameter:
    return Parameter(
        argument="color",
        name="color",
        place=place,
        style=style,
        explode=explode,
        required=False,
        **more,
    )


@pytest.mark.parametrize(
    ("style", "explode", "text", "several", "members"),
    [  # the table of the specification
        ("simple", False, "blue", "blue,black", "R,100,G,200"),
        ("simple", True, "blue", "blue,black", "R=100,G=200"),
        ("label", False, ".blue", ".blue,black", ".R,100,G,200"),
        ("label", True, ".blue", ".blue.black", ".R=100.G=200"),
        ("matrix", False, ";color=blue", ";color=blue,black", ";color=R,100,G,200"),
        ("matrix", True, ";color=blue", ";color=blue;color=black", ";R=100;G=200"),
    ],
)
def test_path_arguments_are_encoded_in_each_style(
    style: str, explode: Any, text: str, several: str, members: str
) -> None:
    written = parameter("path", style, explode=explode)
    assert [in_path(written, each) for each in ("blue", LIST, OBJECT)] == [text, several, members]


@pytest.mark.parametrize(
    ("style", "explode", "several", "members"),
    [
        ("form", True, "color=blue&color=black", "R=100&G=200"),
        ("form", False, "color=blue,black", "color=R,100,G,200"),
        ("spaceDelimited", False, "color=blue%20black", "color=R%20100%20G%20200"),
        ("pipeDelimited", False, "color=blue%7Cblack", "color=R%7C100%7CG%7C200"),
        ("deepObject", True, "color=blue&color=black", "color%5BR%5D=100&color%5BG%5D=200"),
    ],
)
def test_query_arguments_are_encoded_in_each_style(
    style: str, explode: Any, several: str, members: str
) -> None:
    written = parameter("query", style, explode=explode)
    encoded = [
        "&".join("=".join(pair) for pair in in_query(written, each)) for each in (LIST, OBJECT)
    ]
    assert encoded == [several, members]


@pytest.mark.parametrize(
    ("option", "value", "encoded"),
    [
        ("reserved", "a/b:c?d&e=f#g+h", "a/b:c?d%26e%3Df%23g%2Bh"),
        ("as_json", {"a": [1]}, "%7B%22a%22%3A%5B1%5D%7D"),
    ],
)
def test_reserved_characters_and_json_stay_within_their_query_value(
    option: str, value: Any, encoded: str
) -> None:
    written = parameter("query", "form", explode=True, **{option: True})
    assert in_query(written, value) == [("color", encoded)]


def test_scalars_are_written_as_in_json_and_text_unquoted() -> None:
    written = parameter("header", "simple", explode=False)
    assert in_header(written, [True, 1.0, 1.5, None, "x"]) == "true,1,1.5,,x"


scalars = st.text(max_size=30) | st.integers() | st.booleans() | st.floats(allow_nan=False)
values = (
    scalars
    | st.lists(scalars, max_size=4)
    | st.dictionaries(st.text(max_size=8), scalars, max_size=4)
)
hostile = st.sampled_from(
    ["..", ".", "../..", "%2e%2e", "%252e%252e/x", "a/../b", "..\\", "//evil", "a/..", "\x00", ""]
)
path_styles = st.sampled_from(["simple", "label", "matrix"])
query_styles = st.sampled_from(["form", "spaceDelimited", "pipeDelimited", "deepObject"])

ITEM = translated(
    {
        "openapi": "3.1.0",
        "servers": [{"url": "/api"}],
        "paths": {
            "/things/{id}/of.{kind}": {
                "get": {
                    "operationId": "get",
                    "parameters": [
                        {"name": "id", "in": "path", "required": True},
                        {"name": "kind", "in": "path", "required": True},
                        {"name": "q", "in": "query", "style": "deepObject", "explode": True},
                    ],
                }
            }
        },
    },
    "https://api.example/openapi.json",
).operations["get"]


@given(values | hostile, values | hostile)
def test_an_argument_cannot_leave_its_path_segment(value: Any, kind: Any) -> None:
    try:
        target = request_of(ITEM, {"id": value, "kind": kind}, NONE).target
    except ArgumentError:
        return
    assert re.fullmatch(r"/things/[A-Za-z0-9._~%=,-]+/of\.[A-Za-z0-9._~%=,-]+", target), target
    decoded = target
    for _ in range(3):
        decoded = unquote(decoded)
        assert not {".", ".."} & set(re.split(r"[/\\]", decoded))


@given(path_styles, st.booleans(), st.text(min_size=1, max_size=40))
def test_a_path_decodes_to_its_argument(style: str, explode: Any, text: str) -> None:
    written = parameter("path", style, explode=explode)
    try:
        encoded = in_path(written, text)
    except ArgumentError:
        reject()
    assert unquote(encoded).removeprefix({"label": ".", "matrix": ";color="}.get(style, "")) == text


@given(query_styles, st.booleans(), values)
def test_a_query_contains_only_its_arguments(style: str, explode: Any, value: Any) -> None:
    pairs = in_query(parameter("query", style, explode=explode), value)
    text = "&".join(f"{name}={each}" for name, each in pairs)
    assert re.fullmatch(r"[A-Za-z0-9._~%=,&-]*", text), text
    assert len(parse_qsl(text, keep_blank_values=True)) == len(pairs)
    if isinstance(value, str):
        assert parse_qsl(text, keep_blank_values=True) == [("color", value)]


@given(values)
def test_a_header_value_cannot_contain_a_line_break(value: Any) -> None:
    try:
        encoded = in_header(parameter("header", "simple", explode=True), value)
    except ArgumentError:
        return
    request = bytes_of("GET", "/", b"Host: a\r\n", [("X", encoded)])
    assert request.count(b"\r\n") == 4
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", request)


def secured(kind: str) -> Operation:
    scheme = {"type": "apiKey", "in": kind, "name": "api key"}
    one = {
        "operationId": "x",
        "parameters": [
            {
                "name": "all",
                "in": kind,
                "schema": {"type": "object"},
                "style": "form",
                "explode": True,
            }
        ],
        "security": [{"other": []}, {"key": []}],
    }
    root = {
        "openapi": "3.0.0",
        "paths": {"/x": {"get": one}},
        "components": {"securitySchemes": {"key": scheme}},
    }
    made = translated(root, "x.yaml", base_url="https://a.example")
    return made.operations["x"]


@pytest.mark.parametrize("kind", ["query", "cookie"])
def test_an_exploded_object_cannot_set_a_credential(kind: str) -> None:
    credentials = Credentials({"key": "a secret"}, {"key": Scheme(kind, "api key")}, {})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="set by Toolbus"):
        request_of(secured(kind), {"all": {"api key": "mine"}}, credentials)
    request = request_of(secured(kind), {"all": {"a": 1}}, credentials)
    pairs = request.query if kind == "query" else request.cookies
    assert pairs == [("a", "1"), ("api%20key", "a%20secret")]


def test_secrets_are_removed_in_every_form_they_were_sent_in() -> None:
    encoded = Credentials(
        {"basic": "user:password"}, {"basic": Scheme("basic")}, {"X-Key": "Token abcdef-123"}
    )
    request = Request("GET", "/")
    encoded.add([("basic",)], request)
    assert request.headers == [("Authorization", "Basic dXNlcjpwYXNzd29yZA==")]
    text = b"user:password dXNlcjpwYXNzd29yZA== abcdef-123 fine"
    assert encoded.struck(text) == b"(secret) (secret) (secret) fine"


@pytest.mark.parametrize(
    ("status", "method", "location", "target"),
    [
        (302, "GET", "/b?c=d", "/b?c=d"),
        (302, "GET", "c", "/a/c"),
        (307, "POST", "/b/", "/b/"),
        (302, "POST", "/b", None),
        (200, "GET", "/b", None),
        (302, "GET", "", None),
        (302, "GET", "https://evil.example/b", None),
        (302, "GET", "//evil.example/b", None),
        (302, "GET", "http://api.example/b", None),
        (302, "GET", "https://api.example:444/b", None),
        (302, "GET", "/b\r\nX-Evil: 1", None),
    ],
)
def test_a_redirect_is_followed_on_its_own_origin(
    status: int, method: str, location: str, target: str | None
) -> None:
    head = Head(status, {b"location": location.encode()})
    assert redirect_target(head, method, "https://api.example/a/b") == target
