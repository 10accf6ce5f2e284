"""Plugins that are asked about changes of keys, by the administration API and by operators."""

import asyncio
import json
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.engines.nats_server import NatsAt
from harness.guards.plugin_programs import plugin_program, seed_of
from harness.services.policy_replicas import PolicyReplicas, declared
from harness.waits import until
from toolbus_cli import config_client
from toolbus_cli.state_dir import State
from toolbus_common.access.config_snapshot import key_digest_of
from toolbus_common.config import Admin, Configuration, KeyTerms, Plugin
from toolbus_common.config_store import keys
from toolbus_common.config_store.drafts import hashed
from toolbus_common.contracts import AdminReply, AdminRequest
from toolbus_common.errors import ForbiddenError
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings

ROOT = "tba_root_a-secret-of-an-administrator"
PASS = {"verdict": "pass"}
TERMS = {"tools": ["docs__*"], "team": "ops"}


def plugged(**fields: Any) -> Configuration:
    """Return a configuration with an administrator and the plugin `probe`."""
    given = {"hooks": ["on_key"], "sees": ["key"], "may": ["refuse"], "timeout": "60s"}
    plugin = {**given, **fields}
    return declared(approve=[]).model_copy(
        update={
            "admins": {"root": Admin(role="admin", secret_hash=hashed(ROOT))},
            "plugins": {"probe": Plugin.model_validate(plugin)},
        }
    )


async def administer(policy: PolicyReplicas, operation: str, body: Any = "", **fields: Any) -> Any:
    """Perform an operation of the administration API."""
    request = AdminRequest(
        key_digest=key_digest_of(ROOT), operation=operation,
        body=json.dumps(body) if body else "", **fields,
    )  # fmt: skip
    reply = await policy.ingress.requests.request(request, AdminReply, 30.0)
    return json.loads(reply.body) if reply.body else None


def seen(requests: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the action and the name of each question."""
    return [(each["content"]["action"], each["key"]) for each in requests]


async def test_a_plugin_sees_every_change_of_a_key_without_its_secret(
    policy: PolicyReplicas, nats_server: NatsAt
) -> None:
    async with plugin_program(
        nats_server.url, nats_server.seed(seed_of("probe")), lambda _: PASS
    ) as probe:
        await policy.declare(plugged())
        made = await administer(policy, "create_key", {"name": "new", **TERMS})
        await administer(policy, "replace_key", {**TERMS, "tools": ["*"]}, name="new")
        rotated = await administer(policy, "rotate_key", name="new")
        await administer(policy, "revoke_key", name="new")
        await administer(policy, "rotate_key", name="new")
        await administer(policy, "create_admin", {"name": "second", "role": "viewer"})
        await administer(policy, "revoke_admin", name="second")
    assert seen(probe.requests) == [
        ("created", "new"), ("changed", "new"), ("rotated", "new"), ("revoked", "new"),
        ("created", "new"), ("created", "second"), ("revoked", "second"),
    ]  # fmt: skip
    first = probe.requests[0]
    assert (first["point"], first["customer"]) == ("on_key", "acme")
    assert first["content"] == {
        "action": "created", "kind": "key", "by": "admin:root", "terms": TERMS,
    }  # fmt: skip
    assert [each["content"]["kind"] for each in probe.requests[-2:]] == ["admin", "admin"]
    received = json.dumps(probe.requests)
    for secret in (made["secret"], rotated["secret"]):
        assert secret not in received
        assert hashed(secret) not in received


@pytest.mark.parametrize("operation", ["create_key", "apply_configuration"])
async def test_a_refused_key_does_not_exist(
    policy: PolicyReplicas, nats_server: NatsAt, operation: str
) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        wide = "*" in request["content"]["terms"].get("tools", ())
        return {"verdict": "refuse", "reason": "name the tools"} if wide else PASS

    terms = {"tools": ["*"]}
    given: dict[str, Any] = {
        "create_key": {"body": {"name": "wide", **terms}},
        "apply_configuration": {
            "body": plugged().model_copy(update={"keys": {"wide": key("x" * 30, **terms)}})
            .model_dump(mode="json", exclude_defaults=True),
            "match": "*",
        },
    }  # fmt: skip
    async with plugin_program(nats_server.url, nats_server.seed(seed_of("probe")), answer):
        await policy.declare(plugged())
        with pytest.raises(ForbiddenError, match="refused this key: name the tools") as caught:
            await administer(policy, operation, **given[operation])
        assert "Nothing was changed" in caught.value.reason
        listed = await administer(policy, "list_keys")
        assert "wide" not in [each["name"] for each in listed["items"]]


async def test_a_plugin_cannot_prevent_a_revocation(
    policy: PolicyReplicas, nats_server: NatsAt
) -> None:
    answer = {"verdict": "refuse", "reason": "no"}
    async with plugin_program(
        nats_server.url, nats_server.seed(seed_of("probe")), lambda _: answer
    ) as probe:
        await policy.declare(plugged())
        await administer(policy, "revoke_key", name="bot")
        assert (await administer(policy, "show_key", name="bot"))["state"] == "revoked"
        with pytest.raises(ForbiddenError):
            await administer(policy, "create_admin", {"name": "second", "role": "admin"})
    assert seen(probe.requests) == [("revoked", "bot"), ("created", "second")]


async def test_a_plugin_that_does_not_answer_delays_no_revocation(
    policy: PolicyReplicas, nats_server: NatsAt
) -> None:
    seed = nats_server.seed(seed_of("probe"))
    async with plugin_program(nats_server.url, seed, lambda _: None) as probe:
        await policy.declare(plugged(timeout="1s"))
        revoking = asyncio.create_task(administer(policy, "revoke_key", name="bot"))
        await until(lambda: probe.requests, "the plugin has a request")
        assert (await administer(policy, "show_key", name="bot"))["state"] == "revoked"
        await revoking


async def test_a_plugin_is_asked_only_about_keys_in_its_scope(
    policy: PolicyReplicas, nats_server: NatsAt
) -> None:
    async with plugin_program(
        nats_server.url, nats_server.seed(seed_of("probe")), lambda _: PASS
    ) as probe:
        await policy.declare(plugged(customers=["globex"], sees=[]))
        await administer(policy, "create_key", {"name": "ours", **TERMS})
        await administer(policy, "create_key", {"name": "theirs", "user": "eve"})
    (request,) = probe.requests
    assert (request["customer"], request["key"]) == ("globex", "theirs")
    assert (request["has_content"], request["content"]) == (False, None)


async def test_a_command_of_an_operator_is_asked_about_but_not_the_operators_file(
    operator: Bus, settings: Settings, nats_server: NatsAt
) -> None:
    answer = {"verdict": "refuse", "reason": "no"}
    async with (
        plugin_program(
            nats_server.url, nats_server.seed(seed_of("probe")), lambda _: answer
        ) as probe,
        config_client.opened(operator, State(settings.state_dir)) as repository,
    ):
        await repository.apply(plugged(), "file")
        other = {**plugged().keys, "filed": key("y" * 30)}
        await repository.apply(plugged().model_copy(update={"keys": other}), "file")
        assert probe.requests == []
        with pytest.raises(ForbiddenError, match="refused this key"):
            await keys.create_key(repository, "commanded", KeyTerms())
    assert seen(probe.requests) == [("created", "commanded")]
