"""Cached responses of models, with executors on a real bus."""

import json
from contextlib import suppress
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from harness.apis.model_provider import (
    DONE,
    ModelProvider,
    ModelRequest,
    chunk,
    last_chunk,
    stream,
    usage_chunk,
)
from harness.services.model_gateway import PRICE, ModelGateway, provider
from harness.waits import until_async
from toolbus_common.config import Provider
from toolbus_common.contracts import (
    CachedResponsesQuery,
    CachedResponsesReply,
    CallResult,
    PurgeCacheReply,
    PurgeCacheRequest,
)
from toolbus_common.contracts.model_calls import EMBEDDINGS, CacheNote, CacheTerms, ModelCall
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import PEOPLE
from toolbus_common.privacy.crypto_shredding import shred
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_executor.main import build

COST = 25  # micro-dollars of the provider's usual response


def cached(model: ModelProvider, **cache: Any) -> Provider:
    """Return a provider with a cache."""
    return provider(model, cache=cache)


def asked(text: str = "hello", **more: Any) -> dict[str, Any]:
    """Return the fields of a call with a request that may be cached."""
    scope, control = more.pop("scope", "customer:acme"), more.pop("control", "")
    embedding, streamed = more.pop("embedding", None), more.pop("streamed", False)
    body = {"model": "alias", "messages": [{"role": "user", "content": text}], **more}
    if streamed:
        body["stream"] = True
    return {
        "body": body,
        "streamed": streamed,
        "extra": ModelCall(alias="team", stream=streamed, cache=control).encode(),
        "cache": CacheTerms(scope, embedding).encode(),
    }


async def status(gateway: ModelGateway, number: str, **call: Any) -> str:
    """Make a request, and return how the cache was used."""
    assert isinstance(await gateway.call(number, **call), CallResult)
    return gateway.note(number).status


async def query(operator: Bus, **selected: Any) -> CachedResponsesReply:
    """Return the cached responses, as `toolbus cache show` does."""
    query = CachedResponsesQuery(**selected)
    return await RequestReply(OPERATOR, operator).request(query, CachedResponsesReply)


async def purged(operator: Bus, **selected: Any) -> int:
    """Purge cached responses, and return their number."""
    request = PurgeCacheRequest(by="bo", **selected)
    return (await RequestReply(OPERATOR, operator).request(request, PurgeCacheReply)).removed


async def stored(operator: Bus, key: str) -> None:
    """Wait until a response to a request of this key is stored."""

    async def found() -> bool:
        return bool((await query(operator, key=key)).responses)

    await until_async(found, f"the response to {key}")


async def test_an_equal_request_is_answered_from_the_cache_and_costs_nothing(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async with gateway.executor(p=cached(model)):
        first = await gateway.call("1", **asked())
        second = await gateway.call("2", **asked())
        assert first == second
        assert len(model.requests) == 1
        assert gateway.note("1").status == "miss"
        hit = gateway.note("2")
        assert (hit.status, hit.key) == ("hit", gateway.note("1").key)
        assert (await gateway.outcome("1"))["charge"] == COST
        outcome = await gateway.outcome("2")
        assert (outcome["event"], outcome["charge"], outcome["reserved"]) == (
            "call.completed", 0, True,
        )  # fmt: skip
        used = await gateway.event("2", "model.used")
        assert (used["cache"], used["saved"], used["saved_tokens"]) == ("hit", COST, 14)
        assert (used["charge"], used["input_tokens"], used["output_tokens"]) == (0, 0, 0)
        assert used["finish_reason"] == "stop"
        missed = await gateway.event("1", "model.used")
        assert (missed["cache"], missed["saved"]) == ("miss", 0)


async def test_a_request_without_terms_is_not_cached(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async with gateway.executor(p=cached(model)):
        for number in ("1", "2"):
            await gateway.call(number, **asked() | {"cache": ""})
        assert len(model.requests) == 2
        assert (await gateway.event("2", "model.used"))["cache"] == ""


async def test_a_stream_is_replayed_as_the_client_received_it(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    model.answer = stream
    async with gateway.executor(p=cached(model)):
        assert await status(gateway, "1", **asked(streamed=True)) == "miss"
        assert await status(gateway, "2", **asked(streamed=True)) == "hit"
        assert gateway.chunks("2") == gateway.chunks("1")
        assert gateway.chunks("2").endswith(DONE)
        assert len(model.requests) == 1
        used = await gateway.event("2", "model.used")
        assert used["streamed"]
        assert 0 < used["first_token_us"] <= used["latency_us"]


async def test_incomplete_and_failed_responses_are_not_cached(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        text = request.json["messages"][0]["content"]
        if text == "broken":
            await request.begin_stream()
            await request.send(chunk("Hel"))
            request.kill()
        elif text == "cut":
            await request.begin_stream()
            for part in (chunk("Hel"), last_chunk("length"), usage_chunk(), DONE):
                await request.send(part)
            await request.end_stream()
        else:
            await request.reply({"error": {"message": "no"}}, 400)

    model.answer = answer
    async with gateway.executor(p=cached(model)):
        for text in ("broken", "cut", "refused"):
            streamed = text != "refused"
            for repeat in ("1", "2"):
                await gateway.call(f"{text}{repeat}", **asked(text, streamed=streamed))
                assert gateway.note(f"{text}{repeat}").status == "miss"
        assert len(model.requests) == 6


async def test_a_stream_without_its_last_event_and_embeddings_with_an_error_are_not_cached(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        if request.path.endswith("/embeddings"):
            kind = request.json["input"]
            usage = {"prompt_tokens": 6, "total_tokens": 6}
            data = [{"embedding": [1.0]}] if kind == "valid" else []
            error = {"error": {"message": "no"}} if kind == "error" else {}
            await request.reply({"data": data, "usage": usage, **error})
            return
        await request.begin_stream()
        for part in (chunk("Hel"), last_chunk("stop"), usage_chunk()):
            await request.send(part)
        await request.end_stream()

    model.answer = answer
    async with gateway.executor(p=cached(model)):
        for repeat in ("1", "2"):
            await gateway.call(f"cut{repeat}", **asked(streamed=True))
            assert gateway.note(f"cut{repeat}").status == "miss"
        for text, expected in (("error", "miss"), ("empty", "miss"), ("valid", "hit")):
            body = {"model": "alias", "input": text}
            call = asked() | {"body": body, "method": EMBEDDINGS}
            for repeat in ("1", "2"):
                await gateway.call(f"{text}{repeat}", **call)
            assert gateway.note(f"{text}2").status == expected, text


async def test_every_difference_is_another_entry(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async with gateway.executor(p=cached(model), q=cached(model)):
        requests: list[dict[str, Any]] = [
            asked(),
            asked("Hello"),
            asked(temperature=0.5),
            asked(tools=[{"type": "function", "function": {"name": "f"}}]),
            asked(scope="team:support"),
            asked() | {"customer": "other"},
            asked() | {"server": "q"},
            asked() | {"method": "models/messages"},
        ]
        for repeat, expected in (("a", "miss"), ("b", "hit")):
            for number, request in enumerate(requests[:-1]):
                assert await status(gateway, f"{repeat}{number}", **request) == expected, number
        await gateway.call("c", **requests[-1])
        assert gateway.note("c").status == "miss"


async def test_cache_control_skips_the_read_or_the_whole_cache(
    gateway: ModelGateway, model: ModelProvider
) -> None:
    async with gateway.executor(p=cached(model)):
        assert await status(gateway, "1", **asked(control="no-store")) == "bypass"
        assert await status(gateway, "2", **asked()) == "miss"
        assert await status(gateway, "3", **asked(control="no-cache")) == "miss"
        assert await status(gateway, "4", **asked(control="no-store")) == "bypass"
        assert await status(gateway, "5", **asked()) == "hit"
        assert len(model.requests) == 4


async def test_another_replica_answers_from_the_cache_after_a_restart(
    gateway: ModelGateway, model: ModelProvider, operator: Bus
) -> None:
    call = asked() | {"key": "restarted"}
    async with gateway.executor(p=cached(model)):
        assert await status(gateway, "1", **call) == "miss"
        await stored(operator, "restarted")
    async with build(ProcessContext()).running():
        await until_async(gateway.is_ready, "the provider")
        assert await status(gateway, "2", **call) == "hit"
    assert len(model.requests) == 1


async def test_a_hit_costs_the_declared_part(gateway: ModelGateway, model: ModelProvider) -> None:
    async with gateway.executor(p=cached(model, hit_charge=0.5)):
        for number in ("1", "2"):
            await gateway.call(number, **asked())
        assert (await gateway.outcome("2"))["charge"] == 13
        used = await gateway.event("2", "model.used")
        assert (used["charge"], used["saved"]) == (13, 12)


async def test_the_oldest_responses_of_a_customer_are_removed_first(
    gateway: ModelGateway, model: ModelProvider, operator: Bus
) -> None:
    async with gateway.executor(p=cached(model, max_entries=2)):
        for number in ("1", "2", "3"):
            call = asked(f"text {number}") | {"key": f"oldest-{number}"}
            assert await status(gateway, number, **call) == "miss"
            await stored(operator, f"oldest-{number}")
        assert await status(gateway, "4", **asked("text 3")) == "hit"
        assert await status(gateway, "5", **asked("text 1")) == "miss"


async def test_a_purge_removes_the_selected_responses_and_those_on_their_way(
    gateway: ModelGateway, model: ModelProvider, operator: Bus
) -> None:
    async with gateway.executor(p=cached(model)):
        for number in ("1", "2"):
            await status(gateway, number, **asked(number) | {"key": f"purged-{number}"})
        assert await purged(operator, key="purged-1") == 1
        assert await status(gateway, "3", **asked("1")) == "miss"
        assert await status(gateway, "4", **asked("2")) == "hit"
        assert await purged(operator, entry=gateway.note("4").key) == 1
        assert await status(gateway, "5", **asked("2")) == "miss"

        release: list[ModelRequest] = []
        complete = model.answer

        async def wait(request: ModelRequest) -> None:
            release.append(request)
            await purged(operator, provider="p", model="m")
            await complete(request)

        model.answer = wait
        assert await status(gateway, "6", **asked("late")) == "miss"
        assert release
        model.answer = complete
        assert await status(gateway, "7", **asked("late")) == "miss"
        reply = await query(operator, provider="p", key="purged-2")
        assert reply.responses == ()
        (event, *_) = [each for each in gateway.events if each["event"] == "cache.purged"]
        assert (event["key"], event["removed"]) == ("purged-1", 1)


@pytest.mark.parametrize("name", ["user:eve", "customer:forgotten"])
async def test_the_content_of_a_forgotten_person_or_customer_cannot_be_read(
    gateway: ModelGateway, model: ModelProvider, operator: Bus, settings: Settings, name: str
) -> None:
    people = PersonKeys(settings.people_key_file)
    people.open(await operator.bucket(PEOPLE))
    kind, _, value = name.partition(":")
    call = asked() | {"key": name, kind: value}
    async with gateway.executor(p=cached(model)):
        assert await status(gateway, "1", **call) == "miss"
        await stored(operator, name)
        assert await status(gateway, "2", **call) == "hit"
        found = await people.find(name)
        assert found is not None
        revision = await shred(operator, people.entry_of(name), found[1])

        async def forgotten() -> bool:
            replies = await RequestReply(OPERATOR, operator).request_all(0.5)
            return any(each.revisions.get(PEOPLE, 0) >= revision for each in replies)

        await until_async(forgotten, "the erasure")
        assert await status(gateway, "3", **call) == "miss"
        assert len(model.requests) == 2


async def test_the_stored_bytes_reveal_no_content(
    gateway: ModelGateway, model: ModelProvider, operator: Bus
) -> None:
    secret = {"key": "sealed", "user": "secret-person"}
    async with gateway.executor(p=cached(model)):
        await status(gateway, "1", **asked("secret question") | secret)
        await stored(operator, "sealed")
    stream, found = operator.client.jetstream(), b""
    for name in ("KV_tb_model_cache", "OBJ_tb_model_responses"):
        state = (await stream.stream_info(name)).state
        for number in range(state.first_seq, state.last_seq + 1):
            with suppress(NotFoundError):  # replaced by a newer one
                found += (await stream.get_msg(name, number)).data or b""
    assert b"sealed" in found
    for text in (b"Hello there", b"secret question", b"secret-person"):
        assert text not in found


PARIS, SIMILAR = "What is the capital city of France?", "Tell me the capital city of France."


async def test_a_similar_question_shares_the_response_and_others_do_not(
    gateway: ModelGateway, model: ModelProvider, operator: Bus
) -> None:
    similar = cached(model, semantic={"threshold": 0.9})
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SIMILAR}]
    free: dict[str, Any] = {"embedding": ()}
    async with gateway.executor(p=similar):
        assert await status(gateway, "1", **asked(PARIS, **free) | {"key": "paris"}) == "miss"
        await stored(operator, "paris")
        assert await status(gateway, "2", **asked(SIMILAR, **free)) == "semantic-hit"
        assert (await gateway.event("2", "model.used"))["cache"] == "semantic-hit"
        assert gateway.note("2").key == gateway.note("1").key
        for number, other in enumerate(
            (
                asked("How do I bake bread?", **free),
                asked("What is the city capital of France?", **free),
                asked("Tell me not the capital city of France.", **free),
                asked("Tell me the capital city of France 2.", **free),
                asked(SIMILAR, **free, scope="team:other"),
                asked(SIMILAR, **free, temperature=1.5),
                asked(SIMILAR, **free, messages=turns),
                asked(SIMILAR, embedding=None),
            )
        ):
            assert await status(gateway, f"o{number}", **other) == "miss", number


async def test_the_embedding_of_a_declared_model_is_charged(
    gateway: ModelGateway, model: ModelProvider, operator: Bus
) -> None:
    chat = model.answer

    async def answer(request: ModelRequest) -> None:
        if request.path.endswith("/embeddings"):
            vector = [1.0, 0.0] if "apple" in request.json["input"] else [0.0, 1.0]
            usage = {"prompt_tokens": 6, "total_tokens": 6}
            await request.reply({"data": [{"embedding": vector}], "usage": usage})
        else:
            await chat(request)

    model.answer = answer
    similar = cached(model, semantic={"embeddings": "e/embed"})
    priced: dict[str, Any] = {"embedding": PRICE}
    async with gateway.executor(p=similar, e=provider(model)):
        first = asked("What is the apple?", **priced) | {"key": "apple"}
        assert await status(gateway, "1", **first) == "miss"
        await stored(operator, "apple")
        assert await status(gateway, "2", **asked("Tell me the apple.", **priced)) == "semantic-hit"
        assert await status(gateway, "3", **asked("a pear", **priced)) == "miss"
        assert (await gateway.outcome("1"))["charge"] == COST + 6 + 7
        assert (await gateway.outcome("2"))["charge"] == 6 + 7
        used = await gateway.event("2.embedding", "model.used")
        assert (used["server"], used["tool"], used["charge"]) == ("e", "embed", 13)
        assert (await gateway.event("2", "model.used"))["charge"] == 0


def test_notes_are_json() -> None:
    assert json.loads(CacheNote("hit", "k", 3).encode()) == {"status": "hit", "key": "k", "age": 3}
