"""Guards on messages outside of calls: which apply, and what is sent."""

import json
from typing import Any

import pytest

from harness.services.call_runner import RecordedEvents, admitted
from harness.services.guarded import TOKEN, guards_of
from toolbus_common.config import Server
from toolbus_common.contracts import MessageGuarded
from toolbus_executor.guards.held_secrets import HeldSecrets
from toolbus_executor.guards.outside_calls import OutsideCalls

SECRETS: dict[str, Any] = {"kind": "secrets", "on": ["arguments", "results"]}
DOWN: dict[str, Any] = {
    "kind": "http",
    "url": "http://127.0.0.1:9",
    "on": ["results"],
    "action": "block",
}
LOG = json.dumps({"level": "info", "data": TOKEN}).encode()
ANSWER = b'"result":' + json.dumps({"content": {"a": TOKEN}}).encode()


class Messages:
    """The messages of one server with a guard g, and the events about them."""

    def __init__(self, attached: tuple[str, ...] = (), **guard: Any) -> None:
        self.events = RecordedEvents()
        declared = Server(url="http://127.0.0.1:1/mcp", guards=attached)
        self.outside = OutsideCalls("docs", declared, guards_of(self.events, g=guard))

    async def logged(self, session: str = "s") -> bytes | None:
        """Return a log message as clients receive it."""
        return await self.outside.message("p", session, "notifications/message", LOG)

    async def answered(self, session: str = "s") -> bytes:
        """Return an answer as the server receives it."""
        return await self.outside.answer("p", session, "elicitation/create", ANSWER)


async def test_a_message_without_guards_is_unchanged() -> None:
    messages = Messages(**SECRETS, action="block")
    assert await messages.logged() is LOG
    assert await messages.answered() is ANSWER
    assert messages.events.published == []


@pytest.mark.parametrize("way", ["server", "always", "call"])
async def test_the_guards_of_the_server_of_all_calls_and_of_the_session_apply(way: str) -> None:
    attached = ("g",) if way == "server" else ()
    messages = Messages(attached, **SECRETS, action="redact", always=way == "always")
    if way == "call":
        messages.outside.note("p", "s", admitted("t", guards=("g",)))
        assert await messages.logged("other") is LOG
    for body in (await messages.logged(), await messages.answered()):
        assert body is not None
        assert TOKEN.encode() not in body
        assert b"[redacted:github-pat:" in body
    assert json.loads(b"{" + await messages.answered() + b"}")["result"]["content"]


async def test_a_blocked_message_is_withheld_and_a_blocked_answer_becomes_an_error() -> None:
    messages = Messages(("g",), **SECRETS, action="block")
    assert await messages.logged() is None
    assert json.loads(b"{" + await messages.answered() + b"}")["error"]["code"] == -32603
    withheld = [each for each in messages.events.published if isinstance(each, MessageGuarded)]
    assert [each.withheld for each in withheld] == [True, True]
    assert TOKEN not in str(withheld)


@pytest.mark.parametrize("fail", ["closed", "open"])
async def test_a_message_that_a_guard_cannot_check_is_dropped_if_the_guard_fails_closed(
    fail: str,
) -> None:
    messages = Messages(("g",), **DOWN, fail=fail)
    assert (await messages.logged() is None) == (fail == "closed")


async def test_no_message_contains_a_secret_of_toolbus_itself() -> None:
    canary, held, events = "a-credential-of-another-server-5d1e", HeldSecrets(), RecordedEvents()
    held.renew("server x", [canary])
    declared = Server(url="http://127.0.0.1:1/mcp", guards=("g",))
    guard = {"kind": "secrets", "on": ["prompts"], "action": "redact"}
    outside = OutsideCalls("docs", declared, guards_of(events, g=guard), held)
    log = json.dumps({"data": canary}).encode()
    shown = await outside.message("p", "s", "notifications/message", log)
    assert shown is not None
    assert b"[redacted:toolbus-own-secret:" in shown
    answer = b'"result":' + log
    refused = await outside.answer("p", "s", "elicitation/create", answer)
    assert json.loads(b"{" + refused + b"}")["error"]["code"] == -32603
    recorded = [each for each in events.published if isinstance(each, MessageGuarded)]
    assert [each.withheld for each in recorded] == [False, True]
    assert canary not in str(recorded)
