"""Services that check content: failures, time limits, long content, the cache, and egress."""

import asyncio
import json
from typing import Any

import pytest

from harness.apis.model_provider import ModelProvider, ModelRequest
from harness.guards import content_apis as apis
from harness.guards.running_guards import RunningGuards, running_guards
from toolbus_common.config import Guard
from toolbus_common.egress import Egress
from toolbus_common.errors import GuardFailedError

HELLO = {"text": "Hello there"}
BAD = {"text": "something evil"}


def http_guard(url: str, **more: Any) -> Guard:
    """Return a guard of kind http that is allowed a lot of time."""
    fields = {"kind": "http", "on": ["results"], "action": "block", "timeout": 30, "url": url}
    return Guard.model_validate(fields | more)


async def reason_of(guards: RunningGuards, content: Any = None, **more: Any) -> str:
    """Return the reason of a check that fails."""
    with pytest.raises(GuardFailedError) as failed:
        await guards.check("g", BAD if content is None else content, **more)
    return failed.value.reason


async def flags_evil(request: ModelRequest) -> None:
    """Flag the texts with `evil`."""
    await request.reply({"flagged": apis.EVIL in json.dumps(request.json)})


async def trickle(request: ModelRequest) -> None:
    """Send one byte of the response at a time, without an end."""
    request.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        request.writer.write(b" ")
        await request.writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>evil</html>", "it is not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "it is not JSON"),
        ({"result": "evil"}, "it has no 'flagged', 'allowed' or 'action'"),
        ({"flagged": "evil"}, "'flagged' is not true or false"),
        ({"action": "evil"}, "its 'action' is unknown"),
        ({"flagged": True, "texts": ["evil"] * 7}, "'texts' must have 2 texts"),
        ({"flagged": True, "findings": "evil"}, "'findings' is not a list"),
        ({"results": [{"flagged": "evil"}] * 2}, "a result has no 'flagged'"),
    ],
)
async def test_a_response_that_is_no_verdict_fails_without_its_text(
    body: Any, reason: str, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply(body)

    model.answer = answer
    async with running_guards({"g": http_guard(model.url)}) as guards:
        found = await reason_of(guards)
        assert reason in found
        assert "evil" not in found


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (302, "redirects requests (HTTP 302); configure its current URL"),
        (403, "rejected the credentials (HTTP 403)"),
        (404, "does not serve the requested URL (HTTP 404); correct the guard's 'url'"),
        (422, "rejected the request (HTTP 422); check the guard's 'options'"),
        (503, "is unavailable (HTTP 503)"),
    ],
)
async def test_an_http_error_says_what_to_change_and_is_not_followed(
    status: int, reason: str, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({"error": "evil"}, status, location="/v1/other")

    model.answer = answer
    async with running_guards({"g": http_guard(model.url)}) as guards:
        found = await reason_of(guards)
        assert reason in found
        assert "evil" not in found
        assert [each.path for each in model.requests] == ["/v1"]


async def test_a_response_that_is_too_large_fails(model: ModelProvider) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({"flagged": False, "padding": "x" * (8 << 20)})

    model.answer = answer
    async with running_guards({"g": http_guard(model.url)}) as guards:
        assert "too large" in await reason_of(guards)


async def test_a_slow_response_fails_at_the_guards_time_limit(model: ModelProvider) -> None:
    model.answer = trickle
    async with running_guards({"g": http_guard(model.url, timeout=0.3)}) as guards:
        assert "did not respond within 0.3 s" in await reason_of(guards)


async def test_a_check_ends_at_the_deadline_of_the_call(model: ModelProvider) -> None:
    model.answer = trickle
    async with running_guards({"g": http_guard(model.url, timeout=60)}) as guards:
        assert "before the call's deadline" in await reason_of(guards, seconds=0.3)
        assert "before the call's deadline" in await reason_of(guards, seconds=-1)


async def test_an_unavailable_service_opens_the_breaker_and_is_not_asked(
    model: ModelProvider,
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({}, 503)

    model.answer = answer
    async with running_guards({"g": http_guard(model.url)}) as guards:
        for _ in range(5):
            assert "HTTP 503" in await reason_of(guards)
        found = await reason_of(guards)
        assert found.startswith("The service failed repeatedly and is not used for ")
        assert len(model.requests) == 5
        row = guards.status("g")
        assert (row["breaker"], len(row["failures"])) == ("open", 5)
        assert "HTTP 503" in row["last_failure"]
        assert [each.NAME for each in guards.events.published] == ["breaker.opened"]


async def test_rejected_contents_do_not_open_the_breaker(model: ModelProvider) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({}, 500)

    model.answer = answer
    async with running_guards({"g": http_guard(model.url)}) as guards:
        for _ in range(12):
            assert "HTTP 500" in await reason_of(guards)
        assert guards.status("g")["breaker"] == "closed"


async def test_a_broken_connection_is_tried_once_more(model: ModelProvider) -> None:
    async def answer(request: ModelRequest) -> None:
        if len(model.requests) % 2:
            request.kill()
        else:
            await flags_evil(request)

    model.answer = answer
    async with running_guards({"g": http_guard(model.url)}) as guards:
        assert (await guards.check("g", BAD)).findings == ("flagged",)
        assert len(model.requests) == 2


async def test_a_service_that_is_down_fails() -> None:
    async with ModelProvider().running() as gone:
        url = gone.url
    async with running_guards({"g": http_guard(url)}) as guards:
        assert "The service cannot be reached" in await reason_of(guards)


async def test_an_internal_address_is_not_asked_unless_the_operator_allows_it(
    model: ModelProvider,
) -> None:
    guards_ = {"g": http_guard(model.url)}
    async with running_guards(guards_, egress=Egress()) as guards:
        assert "TOOLBUS_EGRESS_ALLOW" in await reason_of(guards)
        assert model.connections == 0


async def test_the_credentials_of_the_machine_need_the_operators_confirmation() -> None:
    options = {"guardrail": "abc", "region": "eu-central-1", "ambient": True}
    guard = Guard.model_validate({"kind": "bedrock", "on": ["results"], "options": options})
    async with running_guards({"g": guard}) as guards:
        assert "only an operator may configure" in await reason_of(guards)


async def test_equal_content_is_sent_once_for_each_phase_and_tool(model: ModelProvider) -> None:
    model.answer = flags_evil
    async with running_guards({"g": http_guard(model.url)}) as guards:
        first = await guards.check("g", BAD)
        again = await guards.check("g", BAD)
        assert (first.cached, again.cached) == (False, True)
        assert first.findings == again.findings == ("flagged",)
        assert len(model.requests) == 1
        assert not (await guards.check("g", BAD, "completions")).cached
        assert not (await guards.check("g", HELLO)).cached


async def test_a_cache_of_zero_seconds_stores_nothing(model: ModelProvider) -> None:
    model.answer = flags_evil
    async with running_guards({"g": http_guard(model.url, options={"cache": 0})}) as guards:
        await guards.check("g", BAD)
        assert not (await guards.check("g", BAD)).cached


async def test_a_failure_is_not_cached(model: ModelProvider) -> None:
    async def answer(request: ModelRequest) -> None:
        await (request.reply({}, 503) if len(model.requests) == 1 else flags_evil(request))

    model.answer = answer
    async with running_guards({"g": http_guard(model.url)}) as guards:
        await reason_of(guards)
        assert (await guards.check("g", BAD)).findings == ("flagged",)


@pytest.mark.parametrize("at", [0, 995, 1990, 2600])
async def test_long_content_is_sent_in_parts_that_overlap(at: int, model: ModelProvider) -> None:
    model.answer = flags_evil
    text = "x" * at + "evil" + "x" * (2600 - at)
    async with running_guards({"g": http_guard(model.url, options={"longest": 1000})}) as guards:
        assert (await guards.check("g", {"text": text})).findings == ("flagged",)
        assert len(model.requests) == 5
        assert all(sum(map(len, each.json["texts"])) <= 1000 for each in model.requests)


async def test_content_that_needs_too_many_requests_fails(model: ModelProvider) -> None:
    model.answer = flags_evil
    async with running_guards({"g": http_guard(model.url, options={"longest": 1000})}) as guards:
        assert "more than 100" in await reason_of(guards, {"text": "x" * 200_000})
        assert not model.requests


async def test_repeated_texts_are_sent_once(model: ModelProvider) -> None:
    model.answer = flags_evil
    async with running_guards({"g": http_guard(model.url)}) as guards:
        await guards.check("g", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])
        assert model.requests[0].json["texts"] == ["id", "1", "name", "a", "b"]


async def test_the_whole_document_is_sent_where_configured(model: ModelProvider) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({"allowed": False, "content": {"text": "[removed]"}, "score": 0.4})

    model.answer = answer
    guard = http_guard(model.url, action="redact", options={"send": "content"})
    async with running_guards({"g": guard}) as guards:
        found = await guards.check("g", BAD)
        assert model.requests[0].json["content"] == BAD
        assert (found.findings, found.score) == (("flagged",), 0.4)
        assert json.loads(found.content) == {"text": "[removed]"}


async def test_the_names_of_findings_cannot_contain_content(model: ModelProvider) -> None:
    async def answer(request: ModelRequest) -> None:
        names = ["a b\n<c>" + "x" * 500, *(f"rule-{number}" for number in range(500))]
        await request.reply({"flagged": True, "findings": names, "version": "v" * 500})

    model.answer = answer
    async with running_guards({"g": http_guard(model.url)}) as guards:
        found = await guards.check("g", BAD)
        assert len(found.findings) == 64
        assert found.findings[0] == "a_b_c_" + "x" * 58
        assert len(found.version) == 64


async def test_content_that_is_not_json_fails_without_its_text(model: ModelProvider) -> None:
    async with running_guards({"g": http_guard(model.url)}) as guards:
        found = await reason_of(guards, b'{"evil": ')
        assert found == "The content is not a JSON document that guards can check."
