"""Runs in the form of each API: conversations, streams, responses, and earlier runs in requests."""

import json
from typing import Any

import pytest

from toolbus_codemode.agent.dialects import chat, messages, responses
from toolbus_codemode.agent.dialects.base import Ending, Result, Turn, summed
from toolbus_codemode.agent.dialects.events import data_of
from toolbus_codemode.agent.dialects.select import DIALECTS, earlier_runs, request_of, restored
from toolbus_common.contracts.model_calls import CHAT, MESSAGES, RESPONSES
from toolbus_common.errors import InvalidError, UpstreamInvalidError

RUN = "4f0c"
APIS = [CHAT, RESPONSES, MESSAGES]
Json = dict[str, Any]


def automatic(name: str) -> bool:
    """Return whether the gateway executes a tool."""
    return name.startswith("shop")


def raw(method: str, *calls: tuple[str, str], text: str = "hello") -> bytes:
    """Return a response with a text and calls, each with id and name."""
    if method == CHAT:
        message: Json = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [
                {"id": i, "type": "function", "function": {"name": n, "arguments": '{"a":1}'}}
                for i, n in calls
            ]
        reason = "tool_calls" if calls else "stop"
        return json.dumps(
            {
                "id": "x",
                "model": "m",
                "choices": [{"message": message, "finish_reason": reason}],
                "usage": {"prompt_tokens": 2, "completion_tokens": 3},
            }
        ).encode()
    if method == MESSAGES:
        blocks = [{"type": "text", "text": text}]
        blocks += [{"type": "tool_use", "id": i, "name": n, "input": {"a": 1}} for i, n in calls]  # type: ignore[dict-item]
        reason = "tool_use" if calls else "end_turn"
        return json.dumps(
            {
                "id": "x",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": blocks,
                "stop_reason": reason,
                "usage": {"input_tokens": 2, "output_tokens": 3},
            }
        ).encode()
    part = {"type": "output_text", "text": text, "annotations": []}
    items: list[Json] = [{"type": "message", "id": "m1", "role": "assistant", "content": [part]}]
    items += [
        {"type": "function_call", "id": f"fc_{i}", "call_id": i, "name": n, "arguments": '{"a":1}'}
        for i, n in calls
    ]
    return json.dumps(
        {
            "id": "x",
            "object": "response",
            "model": "m",
            "status": "completed",
            "output": items,
            "usage": {"input_tokens": 2, "output_tokens": 3},
        }
    ).encode()


def request(method: str) -> Json:
    """Return a request."""
    member = "input" if method == RESPONSES else "messages"
    return request_of(method, json.dumps({member: [{"role": "user", "content": "go"}]}).encode())


def executed(method: str) -> list[Turn]:
    """Return two turns: an executed call, and the answer."""
    first = DIALECTS[method].read(raw(method, ("c1", "shop__say")))
    first.results["c1"] = Result("red")
    return [first, DIALECTS[method].read(raw(method, text="done"))]


@pytest.mark.parametrize("method", APIS)
def test_calls_are_read_with_their_arguments(method: str) -> None:
    turn = DIALECTS[method].read(raw(method, ("c1", "shop__say"), ("c2", "ask")))
    assert [(c.call_id, c.name, json.loads(c.arguments)) for c in turn.calls] == [
        ("c1", "shop__say", {"a": 1}), ("c2", "ask", {"a": 1}),
    ]  # fmt: skip


@pytest.mark.parametrize("method", APIS)
@pytest.mark.parametrize("body", [b"[]", b"{", b"{}", b'"x"'])
def test_a_malformed_response_is_an_error_of_the_provider(method: str, body: bytes) -> None:
    with pytest.raises(UpstreamInvalidError):
        DIALECTS[method].read(body)


@pytest.mark.parametrize("method", APIS)
def test_two_calls_with_one_id_are_refused(method: str) -> None:
    with pytest.raises(UpstreamInvalidError, match="same id"):
        DIALECTS[method].read(raw(method, ("c1", "a"), ("c1", "b")))


@pytest.mark.parametrize("method", APIS)
@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"messages": 1, "input": 1}', b"{"])
def test_a_malformed_request_is_refused(method: str, body: bytes) -> None:
    with pytest.raises(InvalidError):
        request_of(method, body)


@pytest.mark.parametrize("method", APIS)
def test_the_next_request_has_the_calls_and_their_results(method: str) -> None:
    body = DIALECTS[method].conversation(request(method), executed(method)[:1])
    sent = body["input" if method == RESPONSES else "messages"][1:]
    if method == CHAT:
        assert sent[0]["tool_calls"][0]["id"] == "c1"
        assert sent[1] == {"role": "tool", "tool_call_id": "c1", "content": "red"}
    elif method == MESSAGES:
        assert sent[0]["content"][1]["id"] == "c1"
        result = {"type": "tool_result", "tool_use_id": "c1", "content": "red"}
        assert sent[1] == {"role": "user", "content": [result]}
    else:
        assert sent[1]["call_id"] == "c1"
        assert sent[2] == {"type": "function_call_output", "call_id": "c1", "output": "red"}


@pytest.mark.parametrize("method", [RESPONSES, MESSAGES])
def test_executed_calls_that_a_client_returns_are_restored(method: str) -> None:
    turns = executed(method)
    response = json.loads(DIALECTS[method].body(turns, Ending(RUN), automatic))
    body = request(method)
    if method == MESSAGES:
        body["messages"].append({"role": "assistant", "content": response["content"]})
    else:
        body["input"] += response["output"]
    whole = DIALECTS[method].conversation(request(method), turns)
    for item in whole.get("input", ()):
        if item.get("type") == "function_call":
            del item["id"]  # of the item, which the client does not receive
    assert restored(method, body, {}) == whole


def test_a_result_joins_the_results_of_the_client_in_the_messages_api() -> None:
    turn = messages.read(raw(MESSAGES, ("c1", "shop__say"), ("c2", "ask")))
    turn.results["c1"] = Result("red", failed=True)
    ending = Ending(RUN, frozenset({"c2"}))
    response = json.loads(messages.body([turn], ending, automatic))
    kinds = [each["type"] for each in response["content"]]
    assert kinds == ["text", "mcp_tool_use", "tool_use", "mcp_tool_result"]
    assert response["stop_reason"] == "tool_use"
    own = {"type": "tool_result", "tool_use_id": "c2", "content": "yes"}
    body = request(MESSAGES)
    body["messages"] += [
        {"role": "assistant", "content": response["content"]},
        {"role": "user", "content": [own]},
    ]
    sent = restored(MESSAGES, body, {})["messages"]
    assert [each["type"] for each in sent[1]["content"]] == ["text", "tool_use", "tool_use"]
    failed = {"type": "tool_result", "tool_use_id": "c1", "content": "red", "is_error": True}
    assert sent[2] == {"role": "user", "content": [failed, own]}


def test_blocks_of_a_provider_s_own_servers_are_not_changed() -> None:
    block = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "n", "server_name": "s"}
    result = {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "content": []}
    message = {"role": "assistant", "content": [block, result]}
    assert restored(MESSAGES, {"messages": [message]}, {}) == {"messages": [message]}
    item = {"type": "mcp_call", "id": "mcp_1", "name": "n"}
    assert restored(RESPONSES, {"input": [item]}, {}) == {"input": [item]}


def test_the_chat_api_gets_earlier_turns_from_the_run_of_a_pending_call() -> None:
    first = executed(CHAT)[0]
    second = chat.read(raw(CHAT, ("c2", "shop__say"), ("c3", "ask")))
    second.results["c2"] = Result("blue")
    turns = [first, second]
    response = json.loads(chat.body(turns, Ending(RUN, frozenset({"c3"})), automatic))
    choice = response["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (pending,) = choice["message"]["tool_calls"]
    body = request(CHAT)
    answer = {"role": "tool", "tool_call_id": pending["id"], "content": "yes"}
    body["messages"] += [choice["message"], answer]
    assert earlier_runs(CHAT, body) == [RUN]
    sent = restored(CHAT, body, {RUN: turns})["messages"]
    assert sent[1:-1] == chat.messages_of(turns)
    assert sent[-1] == {"role": "tool", "tool_call_id": "c3", "content": "yes"}
    assert restored(CHAT, body, {}) == body  # the run has expired: still a valid conversation


def test_several_choices_are_refused_in_the_chat_api() -> None:
    with pytest.raises(InvalidError, match="'n' must be 1"):
        chat.conversation({"messages": [], "n": 2}, [])


def test_the_id_of_a_run_is_no_previous_response() -> None:
    body = {"input": [], "previous_response_id": f"{responses.RESPONSE_ID}{RUN}"}
    with pytest.raises(InvalidError, match="Send the items"):
        responses.conversation(body, [])


@pytest.mark.parametrize("method", APIS)
def test_a_limit_is_named_in_the_response_and_in_the_stream(method: str) -> None:
    ending = Ending(RUN, limit="turns", note="[The run ended.]")
    turns = executed(method)[:1]
    body = json.loads(DIALECTS[method].body(turns, ending, automatic))
    assert body["toolbus"]["limit"] == "turns"
    assert "[The run ended.]" in json.dumps(body)
    stream = DIALECTS[method].stream(RUN, request(method), automatic)
    sent = stream.replayed(turns[0]) + stream.results(turns[0]) + stream.end(turns, ending)
    assert b"[The run ended.]" in sent
    assert b'"limit":"turns"' in sent
    ends = {CHAT: "length", RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}
    assert ends[method] in json.dumps(body)
    assert ends[method].encode() in sent


@pytest.mark.parametrize("method", APIS)
def test_a_stream_without_an_end_is_cut(method: str) -> None:
    stream = DIALECTS[method].stream(RUN, request(method), automatic)
    with pytest.raises(UpstreamInvalidError, match="ended early"):
        stream.turn()


@pytest.mark.parametrize("method", APIS)
def test_usage_is_the_sum_of_all_turns(method: str) -> None:
    assert set(summed(executed(method)).values()) == {4, 6}


def test_usage_with_details_is_summed_by_name() -> None:
    turns = [
        Turn({}, [], usage={"total": 1, "details": {"cached": 2}, "tier": "a", "none": None}),
        Turn({}, [], usage={"total": 3, "details": {"cached": 4, "audio": 1}, "tier": "b"}),
    ]
    assert summed(turns) == {"total": 4, "details": {"cached": 6, "audio": 1}, "tier": "b"}


def test_parts_of_chat_calls_are_joined_by_their_index() -> None:
    stream = chat.ChatStream(RUN, {}, automatic)

    def feed(delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return stream.feed(json.dumps({"id": "x", "choices": [choice]}).encode())

    assert feed({"role": "assistant", "content": "hi"}).count(b"data: ") == 1

    def part(index: int, arguments: str, **fields: Any) -> Json:
        function = {"arguments": arguments, **fields.pop("function", {})}
        return {"tool_calls": [{"index": index, "function": function, **fields}]}

    for index in (0, 1):
        assert feed(part(index, "", id=f"c{index}", function={"name": f"shop__{index}"})) == b""
    assert feed(part(0, '{"a":')) == b""
    assert feed(part(0, "1}"), "tool_calls") == b""
    turn = stream.turn()
    assert [(c.call_id, c.name, c.arguments) for c in turn.calls] == [
        ("c0", "shop__0", '{"a":1}'), ("c1", "shop__1", ""),
    ]  # fmt: skip


def test_the_data_of_events_is_found_between_comments_and_in_several_lines() -> None:
    part = b": wait\n\nevent: x\r\ndata: {\r\ndata: }\r\n\r\ndata:[DONE]\n\n"
    assert list(data_of(part)) == [b"{\n}", b"[DONE]"]


def chunk(delta: Json, reason: str | None = None) -> bytes:
    """Return a chunk of the chat completions API."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return json.dumps({"id": "x", "choices": [choice]}).encode()


def test_arguments_belong_to_the_last_chat_call_with_their_index() -> None:
    stream = chat.ChatStream(RUN, {}, automatic)
    for name in ("a", "b"):
        first = {"index": 0, "id": name, "function": {"name": name, "arguments": ""}}
        stream.feed(chunk({"tool_calls": [first]}))
        text = {"index": 0, "function": {"arguments": f'"{name}"'}}
        stream.feed(chunk({"tool_calls": [text]}, "tool_calls"))
    assert [(c.name, c.arguments) for c in stream.turn().calls] == [("a", '"a"'), ("b", '"b"')]


def test_an_index_that_is_no_number_is_an_error_of_the_provider() -> None:
    stream = chat.ChatStream(RUN, {}, automatic)
    with pytest.raises(UpstreamInvalidError):
        stream.feed(chunk({"tool_calls": [{"index": [], "function": {"name": "a"}}]}))
    with pytest.raises(UpstreamInvalidError):
        messages.MessagesStream(RUN, {}, automatic).feed(
            b'{"type":"content_block_start","index":[],"content_block":{}}'
        )


def test_the_text_of_a_chat_message_with_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turn = chat.read(json.dumps({"choices": [{"message": {"content": parts}}]}).encode())
    shown = json.loads(chat.body([turn], Ending(RUN), automatic))
    assert shown["choices"][0]["message"]["content"] == "ab"
    stream = chat.ChatStream(RUN, {}, automatic)
    assert b'"content":"ab"' in stream.feed(chunk({"content": parts}, "stop"))
    assert stream.turn().content[0]["content"] == "ab"


@pytest.mark.parametrize("method", [MESSAGES, RESPONSES])
def test_an_executed_call_is_never_the_client_s(method: str) -> None:
    (turn, *_) = executed(method)
    shown = DIALECTS[method].body([turn], Ending(RUN), lambda _name: False)
    assert b'"mcp_' in shown
    assert b'"type":"tool_use"' not in shown
    assert b'"type":"function_call"' not in shown
    stream = DIALECTS[method].stream(RUN, {}, lambda _name: False)
    assert b'"mcp_' in stream.replayed(turn)


def test_ids_that_are_no_text_are_left_to_the_provider() -> None:
    blocks: list[Json] = [{"type": "mcp_tool_use", "id": []}]
    blocks += [{"type": "mcp_tool_use", "id": "tbx_1"}, {"type": "mcp_tool_result"}]
    blocks[-1]["tool_use_id"] = []
    body = {"messages": [{"role": "assistant", "content": blocks}]}
    assert len(messages.restored(body)["messages"]) == 1


def test_a_chat_that_repeats_a_pending_call_gets_its_run_once() -> None:
    turn = chat.read(raw(CHAT, ("c3", "ask")))
    ended = chat.body([turn], Ending(RUN, frozenset({"c3"})), automatic)
    message = json.loads(ended)["choices"][0]["message"]
    answer = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "yes"}
    body = request(CHAT)
    before = len(body["messages"])
    body["messages"] += [message, answer] * 3
    made = restored(CHAT, body, {RUN: [turn, turn, turn]})["messages"][before:]
    assert len(made) == 3 + 1 + 4
    assert made[4:] == [message, answer] * 2


def test_a_chat_gets_its_newest_earlier_runs_only() -> None:
    body = request(CHAT)
    for run in range(100):
        body["messages"].append({"role": "assistant", "tool_calls": [{"id": f"tb_{run:x}_0"}]})
    assert earlier_runs(CHAT, body) == [f"{run:x}" for run in range(99, 83, -1)]
