"""Outcomes of calls of the built-in tools, without a bus."""

import asyncio
from time import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.builders.calls import admitted_call
from harness.builders.configurations import configuration_change
from toolbus_codemode.catalog.catalog import Catalogue
from toolbus_codemode.handler import ProgramHandler
from toolbus_common.access.config_snapshot import ConfigView, hash_of, key_digest_of
from toolbus_common.config import Configuration, Guard
from toolbus_common.contracts import CallAdmitted, CallError, CallResult, OutcomeClaim
from toolbus_common.contracts.replies import ReplyMessage
from toolbus_common.guards.inspector import Inspector
from toolbus_common.guards.placeholders import Placeholders
from toolbus_common.mcp.builtin_server import BUILT_IN, LIST, READ

KEY_DIGEST = key_digest_of("tbk_bot_a-secret-of-code-mode")


class PausedOutcomes:
    """An outcome store whose writes wait for `released`."""

    def __init__(self) -> None:
        self.storing, self.released = asyncio.Event(), asyncio.Event()
        self.stored: list[ReplyMessage] = []

    async def end(self, _call: CallAdmitted, _claim: OutcomeClaim, replies: ReplyMessage) -> None:
        self.storing.set()
        await self.released.wait()
        self.stored.append(replies)


class ReplyRecipient:
    """The context of the call."""

    def __init__(self) -> None:
        self.replies: list[ReplyMessage] = []

    async def send(self, reply: ReplyMessage) -> None:
        self.replies.append(reply)


@pytest.fixture
def directory() -> ConfigView:
    key = {"tools": ["*"], "secret_hash": hash_of(KEY_DIGEST)}
    declared = Configuration.model_validate({"keys": {"bot": key}})
    known = ConfigView()
    known.projection.apply_change(configuration_change(declared))
    known.projection.apply_change(None)
    return known


@pytest.mark.parametrize("action", ["redact", "block"])
async def test_a_result_is_checked_before_it_is_sent_or_recorded(
    directory: ConfigView, action: str
) -> None:
    messages = list[Any]()
    service: Any = SimpleNamespace(events=SimpleNamespace(publish=messages.append))
    spending: Any = SimpleNamespace(note=lambda _spent: None)
    unused = cast("Any", None)
    guard = Guard.model_validate({"kind": "secrets", "on": ["results"], "action": action})
    handler = ProgramHandler(
        service, directory, Catalogue(directory), unused, spending, unused, unused
    )
    inspector = Inspector({"g": guard}, unused, Placeholders(lambda: [b"k" * 32]))
    handler.checked.inspector = lambda: inspector
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    call = admitted_call(
        server=BUILT_IN, tool=READ, deadline=time() + 60, key_digest=KEY_DIGEST, charge=7,
        arguments=f'{{"fileName": "{secret}"}}'.encode(), guards=("g",), result_content="full",
    )  # fmt: skip
    reply = await handler.run(call, cast("Any", ReplyRecipient()))
    (event,) = messages
    assert secret not in f"{reply} {event!r} {event.model_dump_json()}"
    if action == "redact":
        assert isinstance(reply, CallResult)
        assert b"[redacted:github-pat:" in reply.body
        assert '"redacted"' in event.guards
    else:
        assert isinstance(reply, CallError)
        assert reply.error.code == "guard_blocked"
        assert (event.sent, event.charge) == (True, 7)
        assert '"blocked"' in event.guards


async def test_a_cancellation_after_the_end_of_a_call_changes_nothing(
    directory: ConfigView,
) -> None:
    outcomes, recipient, messages = PausedOutcomes(), ReplyRecipient(), list[Any]()
    service: Any = SimpleNamespace(events=SimpleNamespace(publish=messages.append))
    spending: Any = SimpleNamespace(note=lambda _spent: None)
    service = ProgramHandler(
        service,
        directory,
        Catalogue(directory),
        cast("Any", None),
        spending,
        cast("Any", outcomes),
        cast("Any", None),
    )
    claim = OutcomeClaim(name="n", revision=1, digest="d")
    call = admitted_call(
        server=BUILT_IN, tool=LIST, deadline=time() + 60, key_digest=KEY_DIGEST, claim=claim
    )
    running = asyncio.create_task(service.run(call, recipient))
    await outcomes.storing.wait()
    service.cancel(call.call_id)
    await asyncio.sleep(0)
    outcomes.released.set()
    reply = await running
    assert isinstance(reply, CallResult)
    assert (outcomes.stored, recipient.replies) == ([reply], [])
    assert [event.NAME for event in messages] == ["call.completed"]


async def test_the_third_identical_failure_has_another_answer(directory: ConfigView) -> None:
    service: Any = SimpleNamespace(events=SimpleNamespace(publish=lambda _event: None))
    spending: Any = SimpleNamespace(note=lambda _spent: None)
    unused = cast("Any", None)
    handler = ProgramHandler(
        service, directory, Catalogue(directory), unused, spending, unused, unused
    )
    call = admitted_call(
        server=BUILT_IN, tool=READ, deadline=time() + 60, key_digest=KEY_DIGEST,
        arguments=b'{"fileName": "/tmp/a"}',
    )  # fmt: skip
    replies = [await handler.run(call, cast("Any", ReplyRecipient())) for _ in range(3)]
    assert all(isinstance(reply, CallResult) for reply in replies)
    bodies = [reply.body.decode() for reply in replies if isinstance(reply, CallResult)]
    assert bodies[0] == bodies[1]
    assert "stubs of tools" in bodies[0]
    assert "This call failed 3 times in the same way" in bodies[2]
