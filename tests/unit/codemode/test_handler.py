"""Outcomes of calls of the built-in tools, without a bus."""

import asyncio
from time import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolbus_codemode.catalog.catalog import Catalogue
from toolbus_codemode.handler import ProgramHandler
from toolbus_common.access.config_snapshot import ConfigView, hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallAdmitted, CallResult, OutcomeClaim, ProtocolFamily
from toolbus_common.contracts.replies import ReplyMessage
from toolbus_common.mcp.builtin_server import BUILT_IN, LIST
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION

KEY_DIGEST = key_digest_of("tbk_bot_a-secret-of-code-mode")


class Outcomes:
    """A bucket that takes its time."""

    def __init__(self) -> None:
        self.asked, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.kept: list[ReplyMessage] = []

    async def end(self, _call: CallAdmitted, _claim: OutcomeClaim, told: ReplyMessage) -> None:
        self.asked.set()
        await self.may_go_on.wait()
        self.kept.append(told)


class Waiting:
    """Whoever waits for the answer."""

    address = "reply"

    def __init__(self) -> None:
        self.told: list[ReplyMessage] = []

    async def send(self, frame: ReplyMessage) -> None:
        self.told.append(frame)


@pytest.fixture
def directory() -> ConfigView:
    key = {"tools": ["*"], "secret_hash": hash_of(KEY_DIGEST)}
    declared = Configuration.model_validate({"keys": {"bot": key}})
    known = ConfigView()
    known.projection.apply_change(Change(CONFIGURATION, declared.model_dump_json().encode(), 1))
    known.projection.apply_change(None)
    return known


async def test_a_cancellation_that_comes_when_a_call_has_ended_takes_nothing_from_it(
    directory: ConfigView,
) -> None:
    outcomes, waiting, messages = Outcomes(), Waiting(), list[Any]()
    service: Any = SimpleNamespace(events=SimpleNamespace(publish=messages.append))
    spending: Any = SimpleNamespace(note=lambda _spent: None)
    service = ProgramHandler(
        service, directory, Catalogue(directory), cast("Any", None), spending, cast("Any", outcomes)
    )
    call = CallAdmitted(
        call_id="c1", reply_to="reply", server=BUILT_IN, tool=LIST, customer="default", key="bot",
        family=ProtocolFamily.MODERN, deadline=time() + 60, traceparent="", key_digest=KEY_DIGEST,
        claim=OutcomeClaim(name="n", revision=1, digest="d"),
    )  # fmt: skip
    running = asyncio.create_task(service.run(call, waiting))
    await outcomes.asked.wait()
    service.cancel(call.call_id)
    await asyncio.sleep(0)
    outcomes.may_go_on.set()
    await asyncio.wait([running])
    assert [type(frame) for frame in waiting.told] == [CallResult]
    assert outcomes.kept == waiting.told
    assert [event.NAME for event in messages] == ["call.completed"]
