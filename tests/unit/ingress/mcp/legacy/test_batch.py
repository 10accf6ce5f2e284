"""Batches: a message that fails does not end the calls of the others."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.mcp.legacy.batch import Batch

CONTEXT = RequestContext(cast("Any", None), {}, {}, cast("Any", None))


async def test_an_unexpected_failure_of_one_message_does_not_cancel_the_others() -> None:
    failed, ended = asyncio.Event(), []

    async def handle(_context: RequestContext, message: Any) -> Response | None:
        if message == "fails":
            failed.set()
            raise RuntimeError("unexpected")
        await failed.wait()
        await asyncio.sleep(0)
        ended.append(message)
        return Response(200, b"{}")

    batch = Batch(CONTEXT, ["first", "fails", "second"], cast("Any", SimpleNamespace()))
    with pytest.raises(RuntimeError, match="unexpected"):
        await batch.answer(handle)
    assert sorted(ended) == ["first", "second"]
