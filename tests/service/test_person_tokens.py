"""Access tokens of persons at policy: authorized like keys, valid and revoked at once."""

import json
from functools import partial
from time import time

import pytest
from nats.js.errors import NotFoundError

from harness.audit.events import bus_of
from harness.services.policy_replicas import PolicyReplicas, declared
from harness.waits import until_async
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Access
from toolbus_common.contracts import Bearer, CallResult
from toolbus_common.errors import ToolbusError, UnauthorizedError, UnknownToolError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import EVENTS, TOKENS
from toolbus_common.settings import Settings


def bearer(user: str = "ann", actors: tuple[str, ...] = ()) -> bytes:
    ends = time() + 600
    held = Bearer(access="staff", user=user, client="c", resource="r", ends=ends, actors=actors)
    return held.encode()


async def test_a_token_is_valid_at_every_policy_from_its_creation_to_its_revocation(
    policy: PolicyReplicas, settings: Settings
) -> None:
    rules = {"staff": Access(tools=("docs__read",))}
    await policy.declare(declared().model_copy(update={"access": rules}))

    async def admitted(token: str) -> bool:
        try:
            return isinstance(await policy.request("read", secret=token), CallResult)
        except UnauthorizedError:
            return False

    async with bus_of("oauth", settings) as oauth:
        bucket = await oauth.bucket(TOKENS)

        async def written(token: str, user: str = "ann") -> None:
            await bucket.put(hash_of(key_digest_of(token)), bearer(user))

        await written("first")
        await until_async(lambda: admitted("first"), "the rule is in effect")
        for n in range(20):
            await written(f"token-{n}", "bob")
            assert await admitted(f"token-{n}")
        assert {call.key for call in policy.reached} == {"staff:ann", "staff:bob"}
        # `ann` is configured.
        assert {call.customer for call in policy.reached} == {"acme", "default"}
        with pytest.raises(UnknownToolError):
            await policy.request("burn", secret="first")
        assert not await admitted("another")
        await bucket.delete(hash_of(key_digest_of("first")))

        async def refused() -> bool:
            try:
                await policy.request("read", secret="first")
            except ToolbusError as error:
                return isinstance(error, UnauthorizedError)
            return False

        for _ in range(8):  # whichever replica answers
            await until_async(refused, "the token is invalid")


async def test_events_of_calls_name_the_actors_of_a_token(
    policy: PolicyReplicas, settings: Settings, operator: Bus
) -> None:
    rules = {"staff": Access(tools=("docs__read",))}
    await policy.declare(declared().model_copy(update={"access": rules}))
    stream = operator.client.jetstream()

    async def actors(event: str) -> list[str] | None:
        try:
            message = await stream.get_last_msg(EVENTS, f"tb.event.{event}.default")
        except NotFoundError:
            return None
        return list(json.loads((message.data or b"").splitlines()[-1])["actors"])

    async def read(token: str) -> bool:
        try:
            return isinstance(await policy.request("read", secret=token), CallResult)
        except UnauthorizedError:
            return False

    acting = ("machines/helper", "machines/first")
    async with bus_of("oauth", settings) as oauth:
        bucket = await oauth.bucket(TOKENS)
        for token, each in (("exchanged", acting), ("own", ())):
            await bucket.put(hash_of(key_digest_of(token)), bearer("bob", each))
            await until_async(partial(read, token), "the rule is in effect")
            assert await actors("call.allowed") == list(each)
        assert {call.key for call in policy.reached} == {"staff:bob"}
        with pytest.raises(UnknownToolError):
            await policy.request("burn", secret="exchanged")

        async def denied() -> bool:
            return await actors("call.denied") == list(acting)

        await until_async(denied, "the event of the denial")
