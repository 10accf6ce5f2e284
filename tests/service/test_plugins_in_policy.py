"""Plugins on a real bus, asked by policy: what they see, what they may do, and their failures."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest
from nats.aio.client import Client

from harness.engines.nats_server import NatsAt
from harness.guards.plugin_programs import Answer, PluginProgram, plugin_program, seed_of
from harness.services.policy_replicas import BOSS, PolicyReplicas, declared, last_event
from harness.waits import until_async
from toolbus_common.config import Configuration, Guard, Plugin
from toolbus_common.config.access.rules import Rule
from toolbus_common.contracts import CallResult
from toolbus_common.errors import GuardBlockedError, GuardFailedError, RuleDeniedError, ToolbusError
from toolbus_common.nats.connection import Bus

PASS = {"verdict": "pass", "version": "1.2"}
SENT: dict[str, Any] = {"arguments": {"page": 7, "note": "hello"}}
TOKEN = "ghp_1pqnpZSYlnhWDmkBdrVqvIWIQG8zJy3VkQ9r"


def plugged(guards: dict[str, Guard] | None = None, **plugins: dict[str, Any]) -> Configuration:
    """Return a configuration with these plugins. The arguments of the key are recorded."""
    made = declared(content="full", approve=[], guards=[*(guards or {})])
    every = {
        name: Plugin.model_validate({"hooks": ["before_decision"], **fields})
        for name, fields in plugins.items()
    }
    return made.model_copy(update={"plugins": every, "guards": guards or {}})


@asynccontextmanager
async def running(nats_server: NatsAt, answer: Answer, name: str = "probe") -> AsyncIterator[Any]:
    """Run a plugin."""
    seed = nats_server.seed(seed_of(name))
    async with plugin_program(nats_server.url, seed, answer, name) as program:
        yield program


@pytest.fixture
async def probe(nats_server: NatsAt) -> AsyncIterator[PluginProgram]:
    """Run the plugin `probe`, which lets every call pass."""
    async with running(nats_server, lambda _: PASS) as program:
        yield program


async def event(operator: Bus, name: str) -> dict[str, Any]:
    """Return the newest event of this name, once there is one."""
    return dict(json.loads(await until_async(lambda: last_event(operator, name), name)))


async def refusal(policy: PolicyReplicas, **given: Any) -> ToolbusError:
    """Return the error of a call."""
    with pytest.raises(ToolbusError) as caught:
        await policy.request(**{**SENT, **given})
    return caught.value


def changing(**changes: Any) -> Answer:
    """Return a plugin that changes arguments."""

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        content = request["content"]
        return {"verdict": "change", "content": {"arguments": content["arguments"] | changes}}

    return answer


async def test_a_plugin_that_sees_names_only_gets_no_content_and_is_recorded(
    policy: PolicyReplicas, operator: Bus, probe: PluginProgram
) -> None:
    await policy.declare(plugged(probe={"hooks": ["before_decision", "after_decision"]}))
    assert isinstance(await policy.request(**SENT), CallResult)
    assert probe.points == ["before_decision", "after_decision"]
    request = probe.requests[0]
    assert (request["server"], request["tool"], request["key"]) == ("docs", "burn", "bot")
    assert request["customer"] == "acme"
    assert (request["has_content"], request["content"]) == (False, None)
    intent = await event(operator, "call.allowed")
    checks = json.loads(intent["guards"])
    assert [(each["guard"], each["phase"], each["verdict"]) for each in checks] == [
        ("plugin:probe", "before_decision", "passed"),
        ("plugin:probe", "after_decision", "passed"),
    ]
    assert [each["version"] for each in checks] == ["1.2", "1.2"]
    assert all(each["us"] > 0 for each in checks)


async def test_rules_server_and_digest_use_the_changed_arguments(
    policy: PolicyReplicas, operator: Bus, nats_server: NatsAt
) -> None:
    may = {"sees": ["arguments"], "may": ["change"]}
    async with running(nats_server, changing(page=9)):
        await policy.declare(plugged(probe=may))
        assert isinstance(await policy.request(**SENT), CallResult)
        (call,) = policy.reached
        assert json.loads(call.arguments) == {"page": 9, "note": "hello"}
        intent = await event(operator, "call.allowed")
        assert intent["arguments_digest"] == sha256(call.arguments).hexdigest()
        rule = Rule(
            cedar="forbid(principal, action, resource) when "
            "{ context.arguments has page && context.arguments.page == 9 };"
        )
        configuration = plugged(probe=may).model_copy(update={"rules": {"nine": rule}})
        await policy.declare(configuration)
        assert isinstance(await refusal(policy), RuleDeniedError)


async def test_guards_check_what_a_plugin_changed(
    policy: PolicyReplicas, nats_server: NatsAt
) -> None:
    guard = Guard.model_validate({"kind": "secrets", "on": ["arguments"], "action": "block"})
    async with running(nats_server, changing(note=TOKEN)):
        await policy.declare(
            plugged({"keys": guard}, probe={"sees": ["arguments"], "may": ["change"]})
        )
        error = await refusal(policy)
    assert isinstance(error, GuardBlockedError)
    assert error.data["guard"] == "keys"


async def test_a_plugin_that_only_looks_sees_what_guards_let_pass(
    policy: PolicyReplicas, probe: PluginProgram
) -> None:
    guard = Guard.model_validate({"kind": "secrets", "on": ["arguments"], "action": "redact"})
    await policy.declare(plugged({"keys": guard}, probe={"sees": ["arguments"]}))
    await policy.request(arguments={"note": TOKEN})
    assert probe.requests
    assert TOKEN not in json.dumps(probe.requests)


@pytest.mark.parametrize("point", ["before_decision", "after_decision"])
async def test_a_refusal_reaches_the_caller_with_its_reason_on_one_line(
    policy: PolicyReplicas, operator: Bus, nats_server: NatsAt, point: str
) -> None:
    answer = {"verdict": "refuse", "reason": "over\n budget\u202e."}
    async with running(nats_server, lambda _: answer):
        await policy.declare(plugged(probe={"hooks": [point], "may": ["refuse"]}))
        error = await refusal(policy)
    assert isinstance(error, GuardBlockedError)
    assert error.reason.startswith("The plugin 'probe' refused this call: over budget. Nothing")
    assert policy.reached == []
    denied = await event(operator, "call.denied")
    (check,) = json.loads(denied["guards"])
    assert (check["guard"], check["phase"], check["verdict"]) == ("plugin:probe", point, "blocked")


@pytest.mark.parametrize(
    "answer",
    [
        b"no json",
        b"[]",
        b'{"verdict": "perhaps"}',
        b'{"verdict": "refuse"}',
        b'{"verdict": "change", "content": {"arguments": []}}',
        b'{"verdict": "change", "content": {"arguments": {}, "more": 1}}',
        b'{"verdict": "change"}',
        b'{"verdict": "pass", "version": "' + b"v" * 100 + b'"}',
        b"[" * 100_000,
        b"",
    ],
    ids=range(10),
)
@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_garbage_is_a_failure_and_passes_only_if_the_plugin_fails_open(
    policy: PolicyReplicas, nats_server: NatsAt, operator: Bus, answer: bytes, fail: str
) -> None:
    settings = {"sees": ["arguments"], "may": ["change"], "fail": fail}
    async with running(nats_server, lambda _: answer):
        await policy.declare(plugged(probe=settings))
        if fail == "closed":
            error = await refusal(policy)
            assert isinstance(error, GuardFailedError)
            assert policy.reached == []
            return
        assert isinstance(await policy.request(**SENT), CallResult)
    assert json.loads(policy.reached[0].arguments) == SENT["arguments"]
    failed = await event(operator, "guard.failed")
    assert (failed["guard"], failed["phase"]) == ("plugin:probe", "before_decision")


async def test_a_plugin_out_of_scope_is_not_asked(
    policy: PolicyReplicas, probe: PluginProgram
) -> None:
    scopes: list[dict[str, Any]] = [
        {"customers": ["globex"]}, {"keys": ["boss"]}, {"servers": ["other"]},
        {"tools": ["docs__read"]},
    ]  # fmt: skip
    for scope in scopes:
        await policy.declare(plugged(probe=scope))
        assert isinstance(await policy.request(**SENT), CallResult)
    assert probe.requests == []
    within = {"customers": ["acme"], "keys": ["bot"], "servers": ["docs"], "tools": ["docs__b*"]}
    await policy.declare(plugged(probe=within))
    await policy.request(**SENT)
    assert probe.points == ["before_decision"]


async def test_plugins_are_asked_in_their_order(
    policy: PolicyReplicas, operator: Bus, nats_server: NatsAt, probe: PluginProgram
) -> None:
    async with running(nats_server, lambda _: PASS, "second") as second:
        for first in (-5, 5):
            await policy.declare(plugged(probe={"order": first}, second={}))
            await policy.request(**SENT)
            intent = await event(operator, "call.allowed")
            names = [each["guard"] for each in json.loads(intent["guards"])]
            assert names == sorted(names, reverse=first > 0)
    assert (len(probe.requests), len(second.requests)) == (2, 2)


async def test_a_silent_plugin_is_ejected_and_named_in_the_status_until_it_answers(
    policy: PolicyReplicas, nats_server: NatsAt
) -> None:
    why = {"plugin:probe": "ejected: it gave no answer within 0.02 s"}

    async def ejected_everywhere() -> bool:
        assert isinstance(await policy.request(**SENT), CallResult)
        return all(each.status().details == why for each in policy.policies)

    async with running(nats_server, lambda _: None) as silent:
        await policy.declare(plugged(probe={"timeout": "20ms"}))
        await until_async(ejected_everywhere, "every policy has ejected the plugin")
        silent.answer = lambda _: PASS
        await policy.declare(plugged(probe={"timeout": "60s"}))  # its declaration has changed
        assert isinstance(await policy.request(**SENT), CallResult)
        assert all(each.status().details == {} for each in policy.policies)


async def test_a_plugin_that_floods_or_hangs_does_not_hurt_calls_of_others(
    policy: PolicyReplicas, nats_server: NatsAt
) -> None:
    async def flood(client: Client) -> None:
        while not client.is_closed:
            for subject in ("tb.call.docs", "tb.event.call.allowed.acme", "_INBOX.policy.x"):
                await client.publish(subject, b"x" * 1000)
            await asyncio.sleep(0)

    hanging = {"hooks": ["before_decision", "after_decision"], "fail": "closed", "timeout": 30}
    async with running(nats_server, lambda _: None) as program:
        flooding = asyncio.create_task(flood(program.client))
        await policy.declare(plugged(probe={**hanging, "keys": ["boss"]}))
        stuck = asyncio.create_task(policy.request("read", secret=BOSS))
        await until_async(lambda: _reached(program), "a call hangs")
        for _ in range(20):
            assert isinstance(await policy.request(**SENT), CallResult)
        assert not stuck.done()
        assert program.rejected
        stuck.cancel()
        flooding.cancel()


async def _reached(program: PluginProgram) -> bool:
    return bool(program.requests)


async def test_a_plugin_without_a_program_fails_at_once(policy: PolicyReplicas) -> None:
    await policy.declare(plugged(probe={"fail": "closed", "timeout": "60s"}))
    error = await refusal(policy)
    assert "its program is not connected to the bus" in error.reason


async def test_a_plugin_can_only_answer_and_only_once(
    policy: PolicyReplicas, nats_server: NatsAt
) -> None:
    async with running(nats_server, lambda _: PASS) as program:
        await policy.declare(plugged(probe={}))
        await policy.request(**SENT)
        inbox = program.replies[0]
        client = program.client
        for subject in (inbox, "_INBOX.policy.x", "tb.call.docs", "tb.event.call.allowed.acme"):
            await client.publish(subject, b"{}")
        await client.subscribe("tb.hook.before_decision.second")
        await client.flush()
        await until_async(lambda: _all(program), "all of it is rejected")


async def _all(program: PluginProgram) -> bool:
    return len(program.rejected) == 5
