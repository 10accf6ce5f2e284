"""The form of a model's reply: bounded schemas, and what is parsed."""

import pytest
from jsonschema_rs import Draft202012Validator

from model_agent.reply_form import LONGEST_PROGRAM, LONGEST_TEXT, ReplyError, parsed, reply_schema

READ = {
    "name": "disk__read",
    "inputSchema": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "head": {"type": "integer"}},
        "required": ["path"],
    },
}
RUN = {
    "name": "executeToolCode",
    "inputSchema": {
        "type": "object",
        "properties": {"code": {"type": "string"}, "language": {"enum": ["starlark", "python"]}},
        "required": ["code"],
    },
}


@pytest.mark.parametrize(
    ("reply", "allowed"),
    [
        ({"answer": "8417"}, True),
        ({"answer": "8" * (LONGEST_TEXT + 1)}, False),
        ({"tool": "disk__read", "arguments": {"path": "/a"}}, True),
        ({"tool": "disk__read", "arguments": {"path": "/a", "head": 3}}, True),
        ({"tool": "disk__read", "arguments": {"head": 3}}, False),
        ({"tool": "disk__read", "arguments": {"path": "/a", "other": 1}}, False),
        ({"tool": "disk__delete", "arguments": {"path": "/a"}}, False),
        ({"tool": "executeToolCode", "arguments": {"code": "x" * LONGEST_PROGRAM}}, True),
        ({"tool": "executeToolCode", "arguments": {"code": "x", "language": "bash"}}, False),
    ],
)
def test_a_reply_is_an_answer_or_a_call_of_a_known_tool(reply: object, *, allowed: bool) -> None:
    assert Draft202012Validator(reply_schema([READ, RUN], answers=True)).is_valid(reply) is allowed


def test_a_reply_without_a_result_must_be_a_call() -> None:
    check = Draft202012Validator(reply_schema([READ, RUN], answers=False))
    assert not check.is_valid({"answer": "8417"})
    assert check.is_valid({"tool": "disk__read", "arguments": {"path": "/a"}})


def test_lists_unions_and_deep_schemas_are_bounded() -> None:
    deep: dict[str, object] = {"type": "string"}
    for _ in range(20):
        deep = {"type": "object", "properties": {"next": deep}}
    properties = {
        "rows": {"type": "array", "items": {"type": "number"}},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "deep": deep,
        "odd": True,
    }
    tool = {"name": "t", "inputSchema": {"type": "object", "properties": properties}}
    check = Draft202012Validator(reply_schema([tool], answers=True))
    assert check.is_valid({"tool": "t", "arguments": {"rows": [1.5], "either": None, "odd": "x"}})
    assert not check.is_valid({"tool": "t", "arguments": {"rows": [1.5] * 100}})
    assert str(reply_schema([tool], answers=True)).count("next") < 20


def test_a_reply_is_parsed_as_an_answer_or_a_call() -> None:
    assert parsed('{"answer": "8417"}') == ("", "8417")
    assert parsed('{"tool": "a", "arguments": {"b": 1}}') == ("a", {"b": 1})


@pytest.mark.parametrize(
    "reply", ['{"answer": "84', "", "[]", '{"tool": "a"}', '{"answer": 1}', '{"arguments": {}}']
)
def test_a_cut_or_malformed_reply_is_refused(reply: str) -> None:
    with pytest.raises(ReplyError):
        parsed(reply)
