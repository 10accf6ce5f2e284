"""The arguments of a tool call that a model suggests: what is checked is what the client reads."""

import json

import pytest

from toolbus_executor.guards.completion_texts import TextsOfResponse, unambiguous

TWICE = '{"path": "secret", "path": "harmless", "n": 1}'


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '{"a": {"b": [1, "x"]}}', "no JSON", '{"a": ', "", '"text"']
)
def test_arguments_that_all_parsers_read_alike_are_not_changed(text: str) -> None:
    assert unambiguous(text) is text


def test_of_a_repeated_name_only_the_member_that_is_checked_is_sent() -> None:
    assert json.loads(unambiguous(TWICE)) == {"path": "harmless", "n": 1}
    assert "secret" not in unambiguous(TWICE)


def test_a_response_has_no_repeated_names_in_its_tool_calls() -> None:
    function = {"name": "f", "arguments": TWICE}
    response = {"choices": [{"message": {"tool_calls": [{"function": function}]}}]}
    texts = TextsOfResponse(response)
    assert texts.was_changed
    assert {"path": "harmless", "n": 1} in texts.document
    assert "secret" not in json.dumps(response)
