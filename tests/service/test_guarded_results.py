"""Guards on the results of a real MCP server: nothing of a call may pass them."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.engines.nats_server import NatsAt
from harness.services.call_runner import CallRunner, ReplyRecorder
from harness.services.guarded import AWS_KEY, TOKEN, guards_of
from harness.waits import PATIENCE
from toolbus_common.config import Results
from toolbus_common.contracts import (
    CallCompleted,
    CallFailed,
    InputRequired,
    Notification,
    Progress,
)
from toolbus_common.errors import GuardBlockedError, GuardFailedError, UpstreamRefusedError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.object_store import Objects
from toolbus_common.nats.topology import RESULTS
from toolbus_common.settings import Settings
from toolbus_executor.guards.held_secrets import HeldSecrets
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.results.large.store import LargeResultStore
from toolbus_executor.results.selection.worker_client import Selector
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream

SERVER = Path(__file__).parent.parent / "harness" / "upstreams" / "echo_server.py"
REDACT = {"kind": "secrets", "on": ["results"], "action": "redact"}
BLOCK = {"kind": "secrets", "on": ["results"], "action": "block"}
FLAG = {"kind": "secrets", "on": ["results"], "action": "flag"}
ONE: dict[str, Any] = {"guards": ("g",), "run": "r1", "principal_id": "p1"}
LIMIT = 100_000  # bytes of a result that is not stored


@pytest.fixture
async def client(settings: Settings, nats_server: NatsAt) -> AsyncIterator[CallRunner]:
    """Run the server, with a store for large results, and a cached tool."""
    bus = Bus("executor", settings.nats_url, nats_server.seed("executor"))
    await bus.open()
    client = CallRunner(tools={"structured": {"cache": {"ttl": 60, "scope": "public"}}})
    store = LargeResultStore(lambda: Objects.opened(bus, RESULTS))
    spills = SpillRegistry(store, Results(limit=LIMIT, largest=64 << 20))
    client.runner.spills = spills
    client.runner.selector = Selector()
    command = [sys.executable, str(SERVER)]
    await client.open(StdioUpstream(command, {}, "", client.news, spills=spills))
    yield client
    await client.close()
    await client.runner.selector.close()
    await spills.close(PATIENCE)
    await bus.close()


def use(client: CallRunner, **guards: Any) -> None:
    """Configure the guards of the calls."""
    client.runner.guards = guards_of(client.events, **guards)


def everything(client: CallRunner, reply: ReplyRecorder) -> str:
    """Return all that the caller has received and all events, as text."""
    sent = [each.encode().decode() for each in reply.frames]
    return "\n".join([*sent, *(each.model_dump_json() for each in client.events.published)])


def checks(client: CallRunner) -> list[dict[str, Any]]:
    """Return the checks in the last event."""
    found: list[dict[str, Any]] = json.loads(client.outcome.guards)
    return found


async def test_a_secret_in_a_result_is_redacted_before_it_is_sent_or_recorded(
    client: CallRunner,
) -> None:
    use(client, g=REDACT)
    reply = await client.call("say", {"text": f"it is {TOKEN}."}, result_content="full", **ONE)
    assert reply.text.startswith("it is [redacted:github-pat:")
    assert TOKEN not in everything(client, reply)
    assert isinstance(client.outcome, CallCompleted)
    (check,) = checks(client)
    assert (check["guard"], check["phase"], check["verdict"]) == ("g", "results", "redacted")
    assert check["findings"] == ["github-pat"]


async def test_a_call_without_guards_has_no_checks(client: CallRunner) -> None:
    use(client, g=REDACT)
    reply = await client.call("say", {"text": TOKEN})
    assert reply.text == TOKEN
    assert client.outcome.guards == ""


async def test_a_blocked_result_was_executed_and_is_charged(client: CallRunner) -> None:
    use(client, g=BLOCK)
    reply = await client.call("say", {"text": TOKEN}, **ONE)
    assert isinstance(reply.error, GuardBlockedError)
    assert "The server has executed the call" in reply.error.reason
    outcome = client.outcome
    assert isinstance(outcome, CallFailed)
    assert (outcome.code, outcome.sent, outcome.charge) == ("guard_blocked", True, 5)
    assert [each["verdict"] for each in checks(client)] == ["blocked"]
    assert TOKEN not in everything(client, reply)
    assert not reply.error.data.keys() & {"charge", "sent"}


async def test_a_blocked_result_with_a_price_by_size_costs_what_the_whole_result_costs(
    client: CallRunner,
) -> None:
    use(client, g=BLOCK)
    text = TOKEN + "x" * 50_000
    price = (1.0, 10.0, 0.0)
    await client.call("say", {"text": f"{text} "}, price=price, charge=10**6)
    whole = client.outcome.charge
    await client.call("say", {"text": f"{TOKEN} {text}"}, price=price, charge=10**6, **ONE)
    assert isinstance(client.outcome, CallFailed)
    assert abs(client.outcome.charge - whole) <= 10


async def test_a_guard_that_only_observes_changes_nothing(client: CallRunner) -> None:
    use(client, g={**BLOCK, "mode": "observe"})
    reply = await client.call("say", {"text": TOKEN}, **ONE)
    assert reply.text == TOKEN
    assert [each["verdict"] for each in checks(client)] == ["would_block"]


async def test_an_unknown_guard_withholds_the_result(client: CallRunner) -> None:
    use(client)
    reply = await client.call("say", {"text": "harmless"}, **ONE)
    assert isinstance(reply.error, GuardFailedError)
    assert "harmless" not in everything(client, reply)
    assert reply.error.data["retryable"] is False


async def test_an_executor_without_guards_rejects_a_call_that_names_one(client: CallRunner) -> None:
    reply = await client.call("say", {"text": "harmless"}, **ONE)
    assert isinstance(reply.error, GuardFailedError)
    assert client.outcome.sent is False


@pytest.mark.parametrize("tool", ["fail", "refuse"])
async def test_errors_of_the_server_are_content_too(client: CallRunner, tool: str) -> None:
    use(client, g=REDACT)
    reply = await client.call(tool, {"text": f"no: {TOKEN}"}, result_content="full", **ONE)
    assert TOKEN not in everything(client, reply)
    assert "[redacted:github-pat:" in everything(client, reply)
    if tool == "refuse":
        assert isinstance(reply.error, UpstreamRefusedError)
        assert reply.error.data["upstream_code"] == -32000
    assert [each["verdict"] for each in checks(client)] == ["redacted"]


async def test_a_blocked_error_is_withheld(client: CallRunner) -> None:
    use(client, g=BLOCK)
    reply = await client.call("refuse", {"text": TOKEN}, **ONE)
    assert isinstance(reply.error, GuardBlockedError)
    assert TOKEN not in everything(client, reply)


@pytest.mark.parametrize("guard", [REDACT, BLOCK], ids=["redact", "block"])
async def test_messages_during_a_call_are_content_too(
    client: CallRunner, guard: dict[str, Any]
) -> None:
    use(client, g=guard)
    more = {"progress": True, "log_level": "debug", **ONE}
    reply = await client.call("tell", {"text": f"now {TOKEN}"}, **more)
    assert TOKEN not in everything(client, reply)
    messages = [each for each in reply.frames if isinstance(each, Progress | Notification)]
    assert len(messages) == (2 if guard is REDACT else 0)


async def test_an_input_request_of_the_server_is_checked_but_its_state_is_not_changed(
    client: CallRunner,
) -> None:
    use(client, g=REDACT)
    capabilities = '{"elicitation":{"form":{}}}'
    reply = await client.call("ask", {"text": TOKEN}, capabilities=capabilities, **ONE)
    assert isinstance(reply.frames[-1], InputRequired)
    message = reply.last["inputRequests"]["q"]["params"]["message"]
    assert message.startswith("[redacted:")
    assert reply.last["requestState"] == TOKEN


# -- caches --------------------------------------------------------------------------------------


async def test_a_caller_with_a_guard_does_not_receive_what_another_had_cached(
    client: CallRunner,
) -> None:
    use(client, g=REDACT)
    arguments = {"value": {"key": TOKEN}}
    plain = await client.call("structured", arguments)
    assert plain.last["structuredContent"]["key"] == TOKEN
    guarded = await client.call("structured", arguments, **ONE)
    assert client.outcome.cached
    assert guarded.last["structuredContent"]["key"].startswith("[redacted:")
    again = await client.call("structured", arguments)
    assert client.outcome.cached
    assert again.last["structuredContent"]["key"] == TOKEN


async def test_each_run_has_its_own_placeholder_of_a_cached_value(client: CallRunner) -> None:
    use(client, g=REDACT)
    arguments = {"value": {"key": TOKEN}}
    replies = [
        await client.call("structured", arguments, **{**ONE, "run": run})
        for run in ("r1", "r2", "r1")
    ]
    texts = [each.last["structuredContent"] for each in replies]
    assert texts[0] == texts[2] != texts[1]


# -- placeholders --------------------------------------------------------------------------------


async def test_the_value_of_a_placeholder_reaches_the_server_only(
    client: CallRunner,
) -> None:
    use(client, g={**REDACT, "restore": ["s__*"]})
    first = await client.call("say", {"text": f"key {TOKEN}"}, **ONE)
    placeholder = first.text.removeprefix("key ")
    client.events.published.clear()
    for tool in ("say", "fail", "refuse"):
        reply = await client.call(
            tool, {"text": f"use {placeholder} now"}, result_content="full", **ONE
        )
        shown = everything(client, reply)
        assert TOKEN not in shown
        assert placeholder in shown
    received = json.loads((await client.call("received")).text)
    assert [each["text"] for each in received[-3:]] == [f"use {TOKEN} now"] * 3


async def test_another_run_or_principal_cannot_use_a_placeholder(client: CallRunner) -> None:
    use(client, g={**REDACT, "restore": ["s__*"]})
    placeholder = (await client.call("say", {"text": TOKEN}, **ONE)).text
    for other in ({"run": "r2"}, {"principal_id": "p2"}, {"run": ""}):
        await client.call("say", {"text": placeholder}, **{**ONE, **other})
    received = json.loads((await client.call("received")).text)
    assert [each["text"] for each in received[-3:]] == [placeholder] * 3


async def test_a_tool_that_the_guard_does_not_name_gets_no_value(client: CallRunner) -> None:
    use(client, g={**REDACT, "restore": ["s__say", "other__*"]})
    placeholder = (await client.call("say", {"text": TOKEN}, **ONE)).text
    await client.call("fail", {"text": placeholder}, **ONE)
    received = json.loads((await client.call("received")).text)
    assert received[-1]["text"] == placeholder


async def test_a_result_for_a_restored_value_is_not_cached(client: CallRunner) -> None:
    use(client, g={**REDACT, "restore": ["s__*"]})
    placeholder = (await client.call("say", {"text": TOKEN}, **ONE)).text
    for _ in range(2):
        reply = await client.call("structured", {"value": {"key": placeholder}}, **ONE)
        assert not client.outcome.cached
        assert reply.last["structuredContent"]["key"] == placeholder


# -- large results -------------------------------------------------------------------------------


async def read_all(client: CallRunner, uri: str, length: int, **more: Any) -> str:
    """Return the text of a stored result, read in parts of this length."""
    text, following = "", f"{uri}?offset=0&length={length}"
    while following:
        reply = await client.call(following, {"uri": following}, method="resources/read", **more)
        content = reply.last["contents"][0]
        text += content["text"]
        following = content["_meta"]["dev.toolbus/result"].get("next", "")
    return text


def uri_in(reply: ReplyRecorder) -> str:
    """Return the URI of the stored part of a result."""
    (link,) = [each for each in reply.last["content"] if each["type"] == "resource_link"]
    return str(link["uri"])


@pytest.mark.parametrize("size", [150_000, 3 << 20], ids=["after", "while it arrives"])
async def test_a_stored_result_was_checked_as_a_whole(client: CallRunner, size: int) -> None:
    use(client, g=REDACT)
    arguments = {"text": f"{AWS_KEY} {TOKEN}", "before": size, "after": size}
    reply = await client.call("large", arguments, **ONE)
    text = await read_all(client, uri_in(reply), 40_001 if size < LIMIT * 2 else 1_000_000, **ONE)
    assert TOKEN not in text
    assert "[redacted:github-pat:" in text
    assert len(text) > 2 * size - 1000
    unguarded = await read_all(client, uri_in(reply), 1_000_000)
    assert unguarded == text


async def test_a_part_of_a_result_that_was_stored_without_guards_is_checked_as_part_of_the_whole(
    client: CallRunner,
) -> None:
    use(client, g=REDACT)
    reply = await client.call("large", {"text": TOKEN, "before": 150_000, "after": 150_000})
    uri = uri_in(reply)
    shown = await read_all(client, uri, 150_010, **ONE)  # the first part ends within the secret
    assert TOKEN not in shown
    assert TOKEN[:12] not in shown
    assert "[redacted:github-pat:" in shown


async def test_a_selection_of_a_stored_result_does_not_contain_a_secret(client: CallRunner) -> None:
    use(client, g=REDACT)
    value = {"a": {"b": TOKEN}, "rest": ["word " * 1000] * 40}
    reply = await client.call("structured", {"value": value})
    uri = f"{uri_in(reply)}?select=a.b"
    plain = await client.call(uri, {"uri": uri}, method="resources/read")
    assert TOKEN in plain.last["contents"][0]["text"]
    guarded = await client.call(uri, {"uri": uri}, method="resources/read", **ONE)
    assert guarded.last["contents"][0]["text"].startswith('"[redacted:')


async def test_a_larger_result_than_guards_check_is_withheld_unless_they_fail_open(
    client: CallRunner,
) -> None:
    use(client, g=BLOCK, open={**FLAG, "fail": "open"})
    arguments = {"text": "", "before": 10 << 20, "after": 10 << 20}
    reply = await client.call("large", arguments, **ONE)
    assert isinstance(reply.error, GuardFailedError)
    passed = await client.call("large", arguments, **{**ONE, "guards": ("open",)})
    assert uri_in(passed)
    names = [type(each).__name__ for each in client.events.published[-2:]]
    assert names == ["GuardFailed", "CallCompleted"]


# -- the secrets of Toolbus itself ---------------------------------------------------------------

CANARY = "a-credential-of-another-server-5d1e"


async def test_a_secret_of_toolbus_is_never_sent_to_a_server(client: CallRunner) -> None:
    use(client, g=REDACT)
    client.runner.secrets = HeldSecrets()
    client.runner.secrets.renew("server x", [CANARY])
    reply = await client.call("say", {"text": f"send {CANARY}"}, **ONE)
    assert isinstance(reply.error, GuardBlockedError)
    assert client.outcome.sent is False
    assert CANARY not in everything(client, reply)
    assert CANARY not in (await client.call("received")).text


async def test_a_secret_of_toolbus_is_redacted_in_a_result(
    client: CallRunner,
) -> None:
    use(client, g=REDACT)
    client.runner.secrets = HeldSecrets()
    for tool in ("say", "refuse"):
        client.runner.secrets.renew("server x", [])
        await client.call(tool, {"text": CANARY})
        client.runner.secrets.renew("server x", [CANARY[:12]])
        reply = await client.call("received", **ONE)
        assert CANARY[:12] not in reply.text
        assert "[redacted:toolbus-own-secret:" in reply.text


async def test_a_renewed_secret_of_toolbus_replaces_the_one_before(client: CallRunner) -> None:
    use(client, g=REDACT)
    secrets = client.runner.secrets = HeldSecrets()
    secrets.renew("server x", [CANARY])
    secrets.renew("server x", ["another-credential-77"])
    assert (await client.call("say", {"text": CANARY}, **ONE)).text == CANARY
    reply = await client.call("say", {"text": "another-credential-77"}, **ONE)
    assert isinstance(reply.error, GuardBlockedError)
