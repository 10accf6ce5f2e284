"""Start, status and stop of codemode and oauth."""

from importlib import import_module
from typing import Any

import pytest

from harness.waits import until_async
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.service.process_context import ProcessContext


@pytest.mark.parametrize(
    ("name", "details"),
    [
        ("codemode", {"engines": ["starlark", "python"], "search": "words"}),
        ("oauth", {"issuer": "", "issues_tokens": False}),
    ],
)
async def test_a_service_is_ready_and_reports_its_details(
    name: str,
    details: dict[str, Any],
    operator: Bus,
) -> None:
    async with import_module(f"toolbus_{name}.main").build(ProcessContext()).running():
        (result,) = await until_async(RequestReply("operator", operator).request_all, "its status")
        assert (result.service, result.ready, result.details) == (name, True, details)
