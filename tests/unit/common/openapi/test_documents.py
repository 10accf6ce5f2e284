"""OpenAPI documents become tools: stable names, schemas without references, safe addresses."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolbus_common.config import Server
from toolbus_common.config.servers.server import LARGEST_LIST
from toolbus_common.openapi import Api, DocumentError, read, translated
from toolbus_executor.upstreams.listing import DEEPEST_DEFINITION, _deeper_than

SOURCE = "https://api.example/openapi.json"
INFO = {"title": "T", "version": "1"}
STRING = {"type": "string"}


def api(paths: dict[str, Any], source: str = SOURCE, **more: Any) -> Api:
    """Return the API of a document with these paths."""
    settings = {name: more.pop(name) for name in ("base_url", "include") if name in more}
    return translated(
        {"openapi": "3.0.3", "info": INFO, "paths": paths, **more}, source, **settings
    )


def posted(schema: Any, **components: Any) -> dict[str, Any]:
    """Return the schema of a request body as in its tool."""
    content = {"application/json": {"schema": schema}}
    paths = {"/x": {"post": {"operationId": "x", "requestBody": {"content": content}}}}
    made = api(paths, components={"schemas": components})
    assert made.left_out == {}
    body: dict[str, Any] = made.operations["x"].definition["inputSchema"]["properties"]["body"]
    return body


# -- schemas -----------------------------------------------------------------------------------


def test_references_are_resolved_and_a_recursive_one_ends() -> None:
    tree = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": STRING,
            "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
        },
    }
    body = posted({"$ref": "#/components/schemas/Tree"}, Tree=tree)
    assert body["required"] == ["name"]
    assert body["properties"]["children"] == {"type": "array", "items": {"type": "object"}}


def test_null_and_exclusive_limits_of_3_0_become_json_schema() -> None:
    assert posted({"type": "string", "nullable": True})["type"] == ["string", "null"]
    assert posted({"type": "string", "nullable": True, "enum": ["a"]})["enum"] == ["a", None]
    choice = posted({"nullable": True, "oneOf": [STRING, {"type": "integer"}]})
    assert choice["anyOf"][1] == {"type": "null"}
    bound = posted({"type": "number", "minimum": 1, "exclusiveMinimum": True})
    assert bound["exclusiveMinimum"] == 1
    assert posted({"type": ["string", "null"]})["type"] == ["string", "null"]


def test_parts_that_are_no_objects_are_not_merged() -> None:
    schema = {"allOf": [STRING, {"maxLength": 3}]}
    assert posted(schema) == schema


def test_parts_of_objects_are_merged_and_choices_stay() -> None:
    named = {"type": "object", "required": ["name"], "properties": {"name": STRING}}
    body = posted(
        {
            "allOf": [
                {"$ref": "#/components/schemas/N"},
                {"properties": {"age": {"type": "integer"}}},
            ]
        },
        N=named,
    )
    assert set(body["properties"]) == {"name", "age"}
    assert body["required"] == ["name"]
    pet = posted({"oneOf": [{"$ref": "#/components/schemas/N"}, STRING]}, N=named)
    assert pet["oneOf"] == [named, STRING]


def test_read_only_and_write_only_properties_are_excluded() -> None:
    account = {
        "type": "object",
        "required": ["id", "password"],
        "properties": {
            "id": {"type": "integer", "readOnly": True},
            "password": {"type": "string", "writeOnly": True},
        },
    }
    json_of = {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}
    one = {
        "operationId": "x",
        "requestBody": {"content": json_of},
        "responses": {"201": {"content": json_of}},
    }
    made = api({"/x": {"post": one}}, components={"schemas": {"A": account}})
    definition = made.operations["x"].definition
    body = definition["inputSchema"]["properties"]["body"]
    assert (list(body["properties"]), body["required"]) == (["password"], ["password"])
    assert list(definition["outputSchema"]["properties"]) == ["id"]


def test_an_output_schema_has_no_constraint_a_valid_response_may_violate() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "additionalProperties": False,
        "description": "An item.",
        "properties": {
            "a": {"type": "integer", "minimum": 1},
            "b": {"oneOf": [STRING, STRING]},
            "c": {"type": "array", "items": STRING},
        },
    }
    responses = {"200": {"content": {"application/json": {"schema": schema}}}}
    made = api({"/x": {"get": {"operationId": "x", "responses": responses}}})
    assert made.operations["x"].definition["outputSchema"] == {
        "type": "object",
        "properties": {
            "a": {"type": ["number", "null"]},
            "b": {"anyOf": [{"type": ["string", "null"]}, {"type": ["string", "null"]}]},
            "c": {"type": ["array", "null"], "items": {"type": ["string", "null"]}},
        },
        "description": "An item.",
    }


schemas = st.recursive(
    st.sampled_from(
        [{"type": "string"}, {"$ref": "#/components/schemas/S"}, {"$ref": "#/nowhere"}, True, 3, {}]
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", 7, ["string", "null"]]),
            "properties": st.dictionaries(st.text(max_size=5), inner, max_size=4),
            "items": inner,
            "allOf": st.lists(inner, max_size=3),
            "oneOf": st.lists(inner, max_size=3),
            "required": st.lists(st.text(max_size=5) | st.integers(), max_size=2),
            "nullable": st.booleans(),
            "enum": st.lists(st.integers(), max_size=2) | st.integers(),
            "description": st.text(max_size=20) | st.integers(),
        },
    ),
    max_leaves=20,
)


@settings(max_examples=50)
@given(schemas, schemas)
def test_tools_of_any_document_are_bounded_and_without_references(schema: Any, shared: Any) -> None:
    content = {"application/json": {"schema": schema}}
    one = {
        "operationId": "x",
        "requestBody": {"content": content},
        "responses": {"200": {"content": content}},
        "parameters": [{"name": "q", "in": "query", "schema": shared}],
    }
    made = api({"/x": {"post": one}}, components={"schemas": {"S": shared}})
    assert set(made.operations) | set(made.left_out) == {"x"}
    for operation in made.operations.values():
        text = msgspec.json.encode(operation.definition)
        assert b"$ref" not in text
        assert not _deeper_than(operation.definition, DEEPEST_DEFINITION)


def test_an_exponential_schema_is_cut_and_its_tool_stays() -> None:
    each: dict[str, Any] = {
        f"S{n}": {
            "type": "object",
            "description": "d" * 2000,
            "properties": {name: {"$ref": f"#/components/schemas/S{n + 1}"} for name in "abcdefgh"},
        }
        for n in range(12)
    }
    each["S12"] = STRING
    body = posted({"$ref": "#/components/schemas/S0"}, **each)
    assert set(body["properties"]) == set("abcdefgh")
    assert len(json.dumps(body)) < 64 * 1024


def test_the_tools_of_a_large_document_fit_one_listing() -> None:
    shared = {
        f"S{n}": {
            "type": "object",
            "description": "d" * 100,
            "properties": {
                f"p{m}": {"$ref": f"#/components/schemas/S{(n * 7 + m) % 50}"} for m in range(8)
            },
        }
        for n in range(50)
    }
    paths = {}
    for n in range(501):
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/S{n % 50}"}}}
        one = {"operationId": f"do{n}x", "requestBody": {"content": content}}
        paths[f"/p{n}"] = {"post": one | {"responses": {"200": {"content": content}}}}
    made = api(paths, components={"schemas": shared})
    assert (len(made.operations), made.left_out) == (501, {})
    schema = [each.definition for each in made.operations.values()]
    assert len(msgspec.json.encode(schema)) < LARGEST_LIST


# -- operations --------------------------------------------------------------------------------


def parameters(*nodes: dict[str, Any], path: str = "/x") -> Api:
    return api({path: {"get": {"operationId": "x", "parameters": list(nodes)}}})


def test_framing_headers_and_credentials_are_not_arguments() -> None:
    nodes = [
        {"name": name, "in": "header", "schema": STRING}
        for name in ("Authorization", "Host", "Content-Length", "X-HTTP-Method-Override", "X-Ok")
    ]
    nodes.append({"name": "api_key", "in": "query", "schema": STRING})
    scheme = {"type": "apiKey", "in": "query", "name": "api_key"}
    made = api(
        {"/x": {"get": {"operationId": "x", "parameters": nodes}}},
        components={"securitySchemes": {"key": scheme}},
    )
    assert list(made.operations["x"].definition["inputSchema"]["properties"]) == ["X-Ok"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/a/{b}", "no parameter exists for {b}"),
        ("//evil.example/x", "valid URL path"),
        ("/a/../b", "'..' segment"),
        ("/a?b=c", "valid URL path"),
        ("/a b\r\nX: y", "valid URL path"),
    ],
)
def test_a_path_that_cannot_be_called_is_skipped(path: str, reason: str) -> None:
    assert reason in parameters(path=path).left_out["x"]


def test_the_description_mentions_paging_and_deprecation() -> None:
    one = {
        "operationId": "x",
        "summary": "List",
        "deprecated": True,
        "parameters": [{"name": "cursor", "in": "query"}, {"name": "limit", "in": "query"}],
    }
    description = api({"/x": {"get": one}}).operations["x"].definition["description"]
    assert description == "Deprecated.\n\nList\n\nResults are paginated; see cursor, limit."


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/y"},
        {"base_url": "https://other.example"},
        {"changed": {"in": "header"}},
        {"security": [{"other": []}]},
    ],
)
def test_a_changed_request_changes_the_pinned_definition(
    change: dict[str, Any],
) -> None:
    def made(schema: dict[str, Any]) -> Any:
        parameter = {"name": "a", "in": "query", "schema": STRING, **schema.get("changed", {})}
        one = {"operationId": "x", "parameters": [parameter], "security": schema.get("security")}
        paths = {schema.get("path", "/x"): {"get": one}}
        return api(paths, base_url=schema.get("base_url", "")).operations["x"].definition

    assert made({}) == made({})
    assert made({}) != made(change)


# -- documents ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "base"),
    [
        ("/v1/", "https://api.example/v1"),
        ("https://api.example/v2", "https://api.example/v2"),
        ("https://api.example:443/v2", "https://api.example:443/v2"),
    ],
)
def test_a_server_url_on_the_documents_origin_is_used(server: str, base: str) -> None:
    assert api({}, servers=[{"url": server}]).base == base


@pytest.mark.parametrize(
    "server",
    [
        "https://evil.example/v1",
        "http://api.example/v1",
        "//evil.example/v1",
        "https://api.example@evil.example/",
        "http://127.0.0.1:6379",
        "/v1 HTTP/1.1\r\nX-Evil: y",
        "/v1?key=x",
    ],
)
def test_a_server_url_of_another_origin_must_be_declared(server: str) -> None:
    with pytest.raises(DocumentError, match="base_url"):
        api({}, servers=[{"url": server}])
    assert api({}, servers=[{"url": server}], base_url="https://b.example/").base


def test_a_file_may_use_variables_in_its_server_url() -> None:
    server = {"url": "https://{at}.example", "variables": {"at": {"default": "eu"}}}
    assert api({}, "crm.yaml", servers=[server]).base == "https://eu.example"
    with pytest.raises(DocumentError, match="set base_url"):
        api({}, "crm.yaml")


def test_an_operation_with_its_own_server_url_is_skipped() -> None:
    one = {"operationId": "x", "servers": [{"url": "https://evil.example"}]}
    assert "server address of its own" in api({"/x": {"get": one}}).left_out["x"]


BOMB = "a: &a [x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("swagger: '2.0'", "Swagger 2.0"),
        ("openapi: 3.2.0\npaths: {}", "version 3.0 or 3.1"),
        ("[]", "not an object"),
        ("{", "not JSON"),
        ("a: [", "neither JSON nor YAML"),
        ("openapi: 3.0.0\npaths: []", "not an object"),
        ("openapi: 3.0.0\nx: 1e999", "infinite or undefined"),
        (BOMB, "too large or too deeply nested"),
        ("x: !!python/object/apply:os.system [id]", "neither JSON nor YAML"),
        ("{" * 100_000, "neither|not JSON"),
    ],
)
def test_a_malformed_document_is_rejected_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        read(text.encode())


def test_a_yaml_document_equals_its_json_form() -> None:
    text = """\
openapi: 3.1.0
paths: {}
x: {200: 2020-01-01, 1.5: no, a: 12:30, b: 089, c: [true, ~, -3, 1.5, 1e3]}
"""
    assert read(text.encode())["x"] == {
        "200": "2020-01-01",
        "1.5": "no",
        "a": "12:30",
        "b": "089",
        "c": [True, None, -3, 1.5, 1000.0],
    }


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=8), schemas, max_size=3))
def test_a_malformed_path_is_skipped(paths: dict[str, Any]) -> None:
    good = {"/good": {"get": {"operationId": "good"}}}
    assert "good" in api({**paths, **good}).operations


def test_fields_of_an_api_are_rejected_for_other_kinds() -> None:
    with pytest.raises(ValueError, match="'base_url' applies only to servers with 'openapi'"):
        Server(url="https://a.example/mcp", base_url="https://a.example")
    with pytest.raises(ValueError, match="exactly one of"):
        Server(url="https://a.example/mcp", openapi="x.yaml")
    kept = Server(openapi="x.yaml", credentials={"a": "b"})
    assert Server.model_validate(kept.model_dump()) == kept
    assert Server.model_validate(Server(url="http://a").model_dump())
    with pytest.raises(ValueError, match=r"write package\.module:function"):
        Server(python="os.system")
