"""Agent mode through the unchanged SDKs: calls, limits, approvals, resumption, and cancellation."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.models.agent_gateway import (
    CLAUDE,
    MODEL,
    PROMPT,
    RUN_ID,
    TEXT,
    AgentGateway,
    call,
    running_agents,
)
from harness.waits import until_blocking

SCRIPT = [[call("say", text="red"), call("count", id="blue")], [call("say", text="green")]]
OWN = [{"type": "function", "function": {"name": "ask_user", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentGateway]:
    """Run a gateway with a scripted model."""
    with running_agents(tmp_path_factory.mktemp("agents")) as gateway:
        yield gateway


@pytest.fixture
def agents(running: AgentGateway) -> AgentGateway:
    """Return the gateway, without records of earlier tests."""
    running.forget()
    return running


# -- the SDKs --------------------------------------------------------------------------------------


def test_the_openai_sdk_receives_the_answer_after_the_tools_have_run(agents: AgentGateway) -> None:
    chat = agents.chat(SCRIPT)
    assert chat.choices[0].finish_reason == "stop"
    assert chat.choices[0].message.tool_calls is None
    assert (chat.choices[0].message.content or "").endswith(f"green {TEXT}")
    assert sorted(agents.calls()) == ["count", "say", "say"]
    sent = agents.mock.received()
    assert len(sent) == 3
    results = [each for each in sent[1].body["messages"] if each["role"] == "tool"]
    assert [each["content"] for each in results] == ["red", "blue"]
    assert chat.usage
    assert chat.usage.completion_tokens == sum(each.usage["output"] for each in sent)


def test_the_openai_sdk_streams_the_text_of_all_turns(agents: AgentGateway) -> None:
    with agents.openai() as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=PROMPT, stream=True, stream_options={"include_usage": True},
            extra_body={"script": SCRIPT},
        )  # fmt: skip
        chunks = list(stream)
    assert len({each.id for each in chunks}) == 1
    assert not any(c.delta.tool_calls for each in chunks for c in each.choices)
    text = "".join(c.delta.content or "" for each in chunks for c in each.choices)
    assert text.count(TEXT) == 3
    reasons = [c.finish_reason for each in chunks for c in each.choices if c.finish_reason]
    assert reasons == ["stop"]
    extras = [(each.model_extra or {}).get("toolbus", {}) for each in chunks]
    results = [each["call"] for each in extras if "call" in each]
    assert [each["result"] for each in results] == ["red", "blue", "green"]
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 15


def test_the_responses_api_shows_executed_calls_as_items(agents: AgentGateway) -> None:
    with agents.openai() as client:
        response = client.responses.create(model=MODEL, input="go", extra_body={"script": SCRIPT})
        executed = [each for each in response.output if each.type == "mcp_call"]
        assert [each.output for each in executed] == ["red", "blue", "green"]
        assert response.status == "completed"
        with client.responses.stream(
            model=MODEL, input="go", extra_body={"script": SCRIPT}
        ) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert [each.type for each in final.output] == [each.type for each in response.output]
        assert kinds.count("response.completed") == 1
        assert kinds.count("response.mcp_call.completed") == 3
        agents.forget()
        items: Any = [each.model_dump(exclude_none=True) for each in final.output]
        asked: Any = [{"role": "user", "content": "go"}, *items, {"role": "user", "content": "on"}]
        client.responses.create(model=MODEL, input=asked)
    sent = agents.mock.received()[0].body["input"]
    kinds = [each["type"] for each in sent if each.get("type", "message") != "message"]
    assert kinds == ["function_call", "function_call_output"] * 3


def test_the_anthropic_sdk_works_unchanged(agents: AgentGateway) -> None:
    with agents.anthropic() as client:
        message = client.messages.create(
            model=CLAUDE, max_tokens=64, messages=PROMPT, extra_body={"script": SCRIPT}
        )
        kinds = [str(each.type) for each in message.content]
        assert kinds == [
            "text", "mcp_tool_use", "mcp_tool_use", "mcp_tool_result", "mcp_tool_result",
            "text", "mcp_tool_use", "mcp_tool_result", "text",
        ]  # fmt: skip
        assert message.stop_reason == "end_turn"
        with client.messages.stream(
            model=CLAUDE, max_tokens=64, messages=PROMPT, extra_body={"script": SCRIPT}
        ) as stream:
            assert "".join(stream.text_stream).count(TEXT) == 3
            final = stream.get_final_message()
        assert [str(each.type) for each in final.content] == kinds
        assert final.usage.output_tokens == message.usage.output_tokens == 15
        agents.forget()
        blocks: Any = [each.model_dump(exclude_none=True) for each in message.content]
        asked: Any = [*PROMPT, {"role": "assistant", "content": blocks}, *PROMPT]
        client.messages.create(model=CLAUDE, max_tokens=64, messages=asked)
    sent = agents.mock.received()[0].body["messages"]
    assert [each["role"] for each in sent] == ["user", "assistant"] * 3 + ["user"]
    results = [each for m in sent[1:-1] if m["role"] == "user" for each in m["content"]]
    assert [each["content"] for each in results] == ["red", "blue", "green"]


def test_a_request_can_disable_agent_mode(agents: AgentGateway) -> None:
    chat = agents.chat(SCRIPT, extra_headers={"x-toolbus-agent": "off"})
    assert len(chat.choices[0].message.tool_calls or ()) == 2
    assert agents.calls() == []


def test_a_key_without_agent_mode_gets_suggestions(agents: AgentGateway) -> None:
    chat = agents.chat(SCRIPT, name="plain")
    assert len(chat.choices[0].message.tool_calls or ()) == 2
    assert agents.calls() == []


def test_a_fallback_serves_a_turn(agents: AgentGateway) -> None:
    assert agents.chat([[call("say", text="red")]], model="shaky").choices[0].message.content
    assert agents.calls() == ["say"]


# -- calls for the client --------------------------------------------------------------------------


def test_calls_of_the_client_are_pending_and_the_others_are_not_lost(agents: AgentGateway) -> None:
    own = {"name": "ask_user", "arguments": {}}
    script = [[call("say", text="red")], [call("count", id="blue"), own]]
    chat = agents.chat(script, tools=OWN)
    pending = chat.choices[0].message.tool_calls
    assert chat.choices[0].finish_reason == "tool_calls"
    assert pending
    assert [each.function.name for each in pending if each.type == "function"] == ["ask_user"]
    assert agents.calls() == ["say", "count"]
    answer = {"role": "tool", "tool_call_id": pending[0].id, "content": "yes"}
    back: Any = [*PROMPT, chat.choices[0].message.model_dump(exclude_none=True), answer]
    agents.forget()
    last = agents.chat(script, messages=back, tools=OWN)
    assert (last.choices[0].message.content or "").startswith("yes")
    sent = agents.mock.received()[0].body["messages"]
    results = [each["content"] for each in sent if each["role"] == "tool"]
    assert results == ["red", "blue", "yes"]
    assert agents.calls() == []


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["turns", "calls", "per-tool", "repeats", "tokens", "usd"])
def test_a_reached_limit_ends_the_run_and_is_named(agents: AgentGateway, name: str) -> None:
    endless = [[call("say", text="red")]] * 4
    chat = agents.chat(endless, name=name)
    assert chat.choices[0].finish_reason == "length"
    limit = "calls_per_tool" if name == "per-tool" else name
    assert f"'agent.{limit}' of the key" in (chat.choices[0].message.content or "")
    assert (chat.model_extra or {})["toolbus"]["limit"] == limit
    assert len(agents.calls()) < 4


# -- approvals -------------------------------------------------------------------------------------


def waiting_approval(agents: AgentGateway, name: str = "bot") -> str:
    """Wait until a run waits for an approval, and return it."""

    def look() -> str:
        with agents.http(name) as client:
            runs = client.get("/v1/agent/runs").json()["runs"]
        return next((each["approval"] for each in runs if each["state"] == "waiting"), "")

    return str(until_blocking(look, "a run that waits"))


def test_a_dangerous_tool_waits_for_its_approval(agents: AgentGateway) -> None:
    script = [[call("push_branch")], [call("say", text="pushed")]]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(agents.chat, script)
        approval = waiting_approval(agents)
        assert agents.calls() == []
        agents.approve(approval)
        assert (running.result().choices[0].message.content or "").endswith(TEXT)
    assert agents.calls() == ["push_branch", "say"]


def test_the_model_learns_that_its_call_was_rejected(agents: AgentGateway) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(agents.chat, [[call("push_branch", why="twice")]])
        agents.reject(waiting_approval(agents))
        running.result()
    assert agents.calls() == []
    answer = agents.mock.received()[1].body["messages"][-1]
    assert answer["content"].startswith("approval_rejected: ")
    assert "not today" in answer["content"]


# -- information flow ------------------------------------------------------------------------------

LEAK = [[call("count", id="plan")], [call("drip", steps=1)], [call("say", text="the plan")]]


def test_a_run_that_read_private_and_untrusted_data_sends_nothing_outside(
    agents: AgentGateway,
) -> None:
    agents.chat(LEAK, name="refuse")
    assert agents.calls() == ["count", "drip"]
    answer = agents.mock.received()[-1].body["messages"][-1]
    assert answer["content"].startswith("flow_refused: ")
    assert "'shop__count' read private data, then 'shop__drip'" in answer["content"]
    agents.forget()
    agents.chat([LEAK[0], LEAK[2]], name="refuse")  # another run, which read private data alone
    assert agents.calls() == ["count", "say"]


def test_a_flagged_run_sends_and_one_that_asks_waits_for_the_approval(
    agents: AgentGateway,
) -> None:
    agents.chat(LEAK, name="flag")
    assert agents.calls() == ["count", "drip", "say"]
    (row,) = agents.cluster.eventual_rows(
        "SELECT flow FROM events WHERE event = 'call.allowed' AND key = 'flag' AND tool = 'say'"
    )
    assert json.loads(row["flow"])["verdict"] == "flagged"
    agents.forget()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(agents.chat, LEAK, name="ask")
        approval = waiting_approval(agents, "ask")
        assert agents.calls() == ["count", "drip"]
        agents.approve(approval)
        running.result()
    assert agents.calls() == ["count", "drip", "say"]


def test_a_run_that_continues_a_conversation_has_read_what_its_earlier_run_read(
    agents: AgentGateway,
) -> None:
    own = {"name": "ask_user", "arguments": {}}
    script = [LEAK[0], [*LEAK[1], own], LEAK[2]]
    chat = agents.chat(script, name="refuse", tools=OWN)
    pending = chat.choices[0].message.tool_calls
    assert pending
    answer = {"role": "tool", "tool_call_id": pending[0].id, "content": "yes"}
    back: Any = [*PROMPT, chat.choices[0].message.model_dump(exclude_none=True), answer]
    agents.chat(script, name="refuse", messages=back, tools=OWN)
    assert agents.calls() == ["count", "drip"]
    last = agents.mock.received()[-1].body["messages"][-1]
    assert last["content"].startswith("flow_refused: ")


# -- runs ------------------------------------------------------------------------------------------


def test_a_run_is_one_id_over_all_its_calls(agents: AgentGateway) -> None:
    with agents.openai() as client:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=PROMPT, extra_body={"script": SCRIPT}
        )
    run = raw.headers[RUN_ID]
    rows = agents.cluster.eventual_rows(
        f"SELECT server, tool, event FROM events WHERE parent_id = '{run}'"
        " AND event = 'call.completed'",
        lambda found: len(found) >= 6,
    )
    assert sorted(each["server"] for each in rows) == ["mock"] * 3 + ["shop"] * 3
    agents.cluster.eventual_events(f"call_id = '{run}'", "run.started", "run.completed")
    with agents.http() as own, agents.http("other") as other:
        shown = own.get(f"/v1/agent/runs/{run}").json()
        assert (shown["state"], shown["turns"], shown["calls"]) == ("completed", 3, 3)
        assert [each["state"] for each in shown["steps"]] == ["done"] * 6
        assert "red" not in json.dumps(shown)
        assert other.get(f"/v1/agent/runs/{run}").status_code == 404
        assert other.delete(f"/v1/agent/runs/{run}").status_code == 404
        assert own.delete(f"/v1/agent/runs/{run}").status_code == 409
        assert run not in [each["run"] for each in other.get("/v1/agent/runs").json()["runs"]]


def test_a_repeated_request_gets_the_response_of_its_run(agents: AgentGateway) -> None:
    with agents.openai() as client:
        create = client.chat.completions.with_raw_response.create
        first = create(model=MODEL, messages=PROMPT, extra_body={"script": SCRIPT})
        agents.forget()
        again = create(
            model=MODEL, messages=PROMPT, extra_body={"script": SCRIPT},
            extra_headers={"x-toolbus-run": first.headers[RUN_ID]},
        )  # fmt: skip
    assert again.parse().choices == first.parse().choices
    assert again.headers[RUN_ID] == first.headers[RUN_ID]
    assert (agents.calls(), agents.mock.received()) == ([], [])


def test_a_cancelled_run_stops_and_cannot_be_continued(agents: AgentGateway) -> None:
    script = [[call("wait", id="long", seconds=30)]]
    with ThreadPoolExecutor(1) as pool, agents.http() as client:
        body = {"model": MODEL, "messages": PROMPT, "script": script}
        running = pool.submit(client.post, "/v1/chat/completions", json=body)
        until_blocking(lambda: agents.calls() == ["wait"], "the call")
        with agents.http() as second:
            runs = second.get("/v1/agent/runs").json()["runs"]
            assert second.delete(f"/v1/agent/runs/{runs[0]['run']}").status_code == 200
            failed = running.result()
            assert failed.json()["error"]["code"] == "cancelled"
            again = second.post(
                "/v1/chat/completions", json=body, headers={"x-toolbus-run": runs[0]["run"]}
            )
        assert again.status_code == 409
    assert len(agents.mock.received()) == 1


def test_a_client_that_disconnects_interrupts_its_run(agents: AgentGateway) -> None:
    body = {"model": f"{MODEL}:chunks=50,gap=100", "messages": PROMPT, "stream": True}
    with agents.http() as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            run = response.headers[RUN_ID]
            next(response.iter_lines())
        assert [each.ended for each in agents.mock.until_ended(1)] == ["gone"]

        def interrupted() -> bool:
            shown = client.get(f"/v1/agent/runs/{run}").json()
            return bool(shown["state"] == "interrupted" and shown["tokens"])

        until_blocking(interrupted, "the interruption")
