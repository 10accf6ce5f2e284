"""Requests to upstream servers, and the mapping of their results, without I/O."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.builders.calls import admitted_call
from toolbus_common.contracts import (
    CallAdmitted,
    CallResult,
    FinalReply,
    InputRequired,
    ProtocolFamily,
    TaskCreated,
)
from toolbus_common.errors import UpstreamInvalidError, UpstreamRefusedError
from toolbus_common.mcp.param_headers import decoded, encoded
from toolbus_executor.mcp_messages import request_builder
from toolbus_executor.mcp_messages.client_capabilities import (
    EVERYTHING,
    declared,
    kinds_of,
    request_kind,
    routed,
)
from toolbus_executor.mcp_messages.result_mapping import final_reply_of
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.param_headers import AnnotationError, header_lines, params_of

META = "io.modelcontextprotocol/"


def call(**more: Any) -> CallAdmitted:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    return admitted_call(**{"traceparent": trace, **more})


def params(changes: CallAdmitted, *, modern: bool) -> dict[str, Any]:
    members = json.loads(request_builder.call_body(changes, 7, modern=modern))
    assert members["method"] == changes.method
    found: dict[str, Any] = members["params"]
    return found


def members_of(raw: bytes, **more: Any) -> Any:
    return json.loads(final_reply_of(raw, call(**more))[0].body)


def reply_of(raw: bytes, **more: Any) -> FinalReply:
    return final_reply_of(raw, call(**more))[0]


def test_arguments_reach_the_upstream_unchanged() -> None:
    changes = call(
        tool='odd"name', progress=True, arguments=b'{"n":123456789012345678901234567890}'
    )
    assert changes.arguments in request_builder.call_body(changes, 7, modern=True)
    found = params(changes, modern=True)
    assert found["name"] == 'odd"name'
    assert found["_meta"]["progressToken"] == 7
    assert found["_meta"]["traceparent"][3:35] == "a" * 32


@pytest.mark.parametrize("modern", [True, False])
def test_params_of_other_methods_are_sent_unchanged(modern: bool) -> None:  # noqa: FBT001
    changes = call(method="resources/read", tool="a://b", arguments=b'{"uri": "a://b", "x": 1}')
    found = params(changes, modern=modern)
    assert {k: v for k, v in found.items() if k != "_meta"} == {"uri": "a://b", "x": 1}
    assert (f"{META}protocolVersion" in found["_meta"]) == modern


def test_a_modern_server_receives_only_capabilities_that_can_be_routed() -> None:
    raw = json.dumps(
        {
            "elicitation": {"form": {}},
            "experimental": {"x": {}},
            "extensions": {f"{META}ui": {"mimeTypes": ["m"]}, "example.org/other": {}},
        }
    )
    found = params(call(capabilities=raw, log_level="info"), modern=True)["_meta"]
    assert found[f"{META}clientCapabilities"] == {
        "elicitation": {"form": {}},
        "extensions": {f"{META}ui": {"mimeTypes": ["m"]}},
    }
    assert found[f"{META}logLevel"] == "info"


def test_answers_and_state_go_to_modern_servers_and_tasks_to_legacy_ones() -> None:
    extra = json.dumps(
        {
            "inputResponses": {"a": {"action": "accept"}},
            "requestState": "s",
            "task": {"ttl": 5},
            "_meta": {"example.org/x": 1, "progressToken": "theirs", f"{META}logLevel": "debug"},
        }
    )
    modern, legacy = (params(call(extra=extra), modern=family) for family in (True, False))
    assert modern["requestState"] == "s"
    assert "task" not in modern
    assert modern["_meta"]["example.org/x"] == 1
    assert modern["_meta"]["progressToken"] == 7, "the progress token that extends the call"
    assert f"{META}logLevel" not in modern["_meta"]
    assert legacy["task"] == {"ttl": 5}
    assert "requestState" not in legacy


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("tools/call", "t"),
        ("prompts/get", "t"),
        ("resources/read", "t"),
        ("tasks/get", "task-1"),
        ("completion/complete", ""),
    ],
)
def test_a_header_names_the_target_of_a_call(method: str, name: str) -> None:
    assert request_builder.name_of(call(method=method, arguments=b'{"taskId":"task-1"}')) == name


@pytest.mark.parametrize("name", ["plain", "with space", "\u00e4", " lead", "=?base64?x?=", ""])
def test_a_name_round_trips_through_its_header(name: str) -> None:
    assert decoded(encoded(name).encode()) == name


def test_a_modern_caller_gets_a_result_type_from_a_legacy_answer() -> None:
    for raw in (b'{"content":[]}', b"{}", b'{ "content" : [] }'):
        assert members_of(raw) == {"resultType": "complete", "content": []}


def test_a_read_resource_gets_default_caching_hints() -> None:
    found = members_of(b'{"contents":[],"ttlMs":5}', method="resources/read")
    assert found == {
        "resultType": "complete",
        "cacheScope": "private",
        "contents": [],
        "ttlMs": 5,
    }


@pytest.mark.parametrize("scope", ["public", "private"])
def test_a_read_resources_own_hints_pass_byte_for_byte(scope: str) -> None:
    raw = b'{"resultType":"complete", "ttlMs":7000,"cacheScope":"%b","contents":[]}'
    raw %= scope.encode()
    assert reply_of(raw, method="resources/read").body == raw


@pytest.mark.parametrize(
    ("hint", "kept"),
    [
        ('"ttlMs":-1,"cacheScope":"public"', (0, "public")),
        ('"ttlMs":1e9,"cacheScope":"private"', (0, "private")),
        ('"ttlMs":"7","cacheScope":"everyone"', (0, "private")),
        ('"ttlMs":7,"cacheScope":null', (7, "private")),
    ],
)
def test_an_invalid_caching_hint_never_allows_caching(hint: str, kept: tuple[int, str]) -> None:
    found = members_of(
        b'{"resultType":"complete","contents":[],%b}' % hint.encode(), method="resources/read"
    )
    assert (found["ttlMs"], found["cacheScope"]) == kept
    assert found["contents"] == []


def test_modern_members_are_removed_for_legacy_callers_and_nothing_else() -> None:
    part = b'{"type":"text","text":"a","x":1.50,"n":12345678901234567890123}'
    raw = b'{"resultType":"complete","ttlMs":5,"content":[%b]}' % part
    body = reply_of(raw, family=ProtocolFamily.LEGACY).body
    assert body == b'{"content":[%b]}' % part


def test_structured_content_other_than_objects_is_removed_for_legacy_callers() -> None:
    raw = b'{"content":[],"structuredContent":[1]}'
    assert members_of(raw, family=ProtocolFamily.LEGACY) == {"content": []}
    assert members_of(raw)["structuredContent"] == [1]


def test_a_result_without_changes_passes_byte_for_byte() -> None:
    raw = b'{ "resultType":"complete", "content":[] , "x-unknown": 1e5 }'
    assert reply_of(raw) == CallResult(raw)


@pytest.mark.parametrize("family", [*ProtocolFamily])
def test_an_input_request_is_equal_in_both_families(family: ProtocolFamily) -> None:
    raw = b'{"resultType":"input_required","inputRequests":{}}'
    assert reply_of(raw, family=family) == InputRequired(raw)


def test_a_created_task_has_the_form_of_the_callers_family() -> None:
    raw = b'{"resultType":"task","taskId":"1","status":"working","ttlMs":5}'
    assert reply_of(raw) == TaskCreated(raw)
    assert members_of(raw, family=ProtocolFamily.LEGACY) == {
        "task": {"taskId": "1", "status": "working", "ttl": 5}
    }
    assert isinstance(reply_of(b'{"task":{"taskId":"1"}}'), TaskCreated)


@pytest.mark.parametrize(
    ("raw", "family", "message"),
    [
        (b'{"resultType":"task","taskId":7}', ProtocolFamily.LEGACY, "malformed"),
        (b'{"resultType":"strange"}', ProtocolFamily.MODERN, "that Toolbus does not support"),
    ],
    ids=["malformed task", "unknown resultType"],
)
def test_an_invalid_result_is_an_upstream_error(
    raw: bytes, family: ProtocolFamily, message: str
) -> None:
    with pytest.raises(UpstreamInvalidError, match=message):
        reply_of(raw, family=family)


@given(st.binary(max_size=80))
def test_any_bytes_from_an_upstream_are_a_result_or_an_upstream_error(text: bytes) -> None:
    try:
        reply_of(messages.result_of(messages.read(text)))
    except (UpstreamInvalidError, UpstreamRefusedError):
        return


def test_the_supported_requests_follow_from_declared_capabilities() -> None:
    assert kinds_of('{"elicitation":{}}') == {"form"}
    assert kinds_of('{"elicitation":{"form":{},"url":{}},"roots":{}}') == {"form", "url", "roots"}
    assert kinds_of("{}") == kinds_of("nonsense") == frozenset()
    assert kinds_of(json.dumps(declared(EVERYTHING))) == EVERYTHING
    assert json.loads(routed("[]")) == {}


def test_a_request_of_an_unknown_kind_has_no_client_capability() -> None:
    assert request_kind("elicitation/create", b'{"mode":"url"}') == "url"
    assert request_kind("elicitation/create", b'{"mode":"strange"}') is None
    assert request_kind("tools/call", b"{}") is None


def annotated(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def repeated(kind: str, name: Any) -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": name}


def test_arguments_become_headers_as_the_schema_requires() -> None:
    schema = annotated(
        region=repeated("string", "Region"),
        deep=annotated(n=repeated("integer", "N")),
        loud=repeated("boolean", "Loud"),
        gone=repeated("string", "Gone"),
    )
    arguments = b'{"region":" \xc3\xa4","deep":{"n":42.0},"loud":true,"gone":null}'
    assert header_lines(params_of(schema), arguments).split(b"\r\n") == [
        b"Mcp-Param-Region: =?base64?IMOk?=",
        b"Mcp-Param-N: 42",
        b"Mcp-Param-Loud: true",
        b"",
    ]


@pytest.mark.parametrize(
    "schema",
    [
        annotated(a=repeated("string", "")),
        annotated(a=repeated("string", "a b")),
        annotated(a=repeated("string", 5)),
        annotated(a=repeated("number", "A")),
        annotated(a=repeated("string", "A"), b=repeated("string", "a")),
        annotated(a={"type": "array", "items": repeated("string", "A")}),
        {"type": "object", "anyOf": [annotated(a=repeated("string", "A"))]},
        {**annotated(), "x-mcp-header": "A", "type": "string"},
    ],
)
def test_an_invalid_header_annotation_is_rejected(schema: dict[str, Any]) -> None:
    with pytest.raises(AnnotationError):
        params_of(schema)


def test_a_property_may_have_the_name_of_the_annotation() -> None:
    assert params_of({"type": "object", "properties": {"x-mcp-header": {"type": "string"}}}) == ()
