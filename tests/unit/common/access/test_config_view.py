"""The configuration as several services of one process see it."""

from time import time

from toolbus_common.access.config_snapshot import (
    ConfigProjection,
    ConfigView,
    hash_of,
    key_digest_of,
)
from toolbus_common.config import Configuration, Key, Server
from toolbus_common.contracts.queries.identity import Bearer
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION, KEY_PREFIX

TOKEN = hash_of(key_digest_of("token"))
DECLARED = Configuration(
    servers={"docs": Server(url="http://127.0.0.1:1/mcp", headers={"X-Key": "sealed"})},
    keys={"bot": Key(tools=("*",), secret_hash=hash_of(key_digest_of("s")))},
)


def opened(configuration: Configuration) -> Configuration:
    """Decrypt the one secret."""
    docs = configuration.servers["docs"].model_copy(update={"headers": {"X-Key": "plain"}})
    return configuration.model_copy(update={"servers": {"docs": docs}})


def opened_if_any(configuration: Configuration) -> Configuration:
    return opened(configuration) if configuration.servers else configuration


def loaded() -> ConfigProjection:
    projection = ConfigProjection()
    projection.apply_change(Change(CONFIGURATION, DECLARED.model_dump_json().encode(), 1))
    projection.apply_change(None)
    return projection


def secret_in(view: ConfigView) -> str:
    return view.now.configuration.servers["docs"].headers["X-Key"]


def test_views_of_one_projection_share_the_parsed_configuration_and_the_principals() -> None:
    projection = loaded()
    one, two = ConfigView(projection), ConfigView(projection)
    assert one.now.configuration is two.now.configuration
    assert one.now.keys is two.now.keys
    assert one.now.principal("bot") is two.now.principal("bot")


def test_only_the_service_with_the_key_sees_a_secret() -> None:
    projection = loaded()
    executor, policy = ConfigView(projection, opened_if_any), ConfigView(projection)
    assert secret_in(executor) == "plain"
    assert secret_in(policy) == "sealed"


def test_secrets_are_decrypted_once_for_each_configuration() -> None:
    projection, decrypted = ConfigProjection(), list[int]()

    def counted(configuration: Configuration) -> Configuration:
        decrypted.append(len(configuration.servers))
        return opened_if_any(configuration)

    view = ConfigView(projection, counted)
    projection.apply_change(Change(CONFIGURATION, DECLARED.model_dump_json().encode(), 1))
    projection.apply_change(None)
    before = view.now.configuration
    own = Key(tools=(), secret_hash=hash_of(key_digest_of("c")))
    projection.apply_change(Change(f"{KEY_PREFIX}cat", own.model_dump_json().encode(), 2))
    assert set(view.now.keys) == {"bot", "cat"}
    assert view.now.configuration is before
    assert decrypted == [0, 1]


def test_a_token_that_one_service_has_verified_is_unknown_to_the_others() -> None:
    projection = loaded()
    ingress, policy = ConfigView(projection), ConfigView(projection)
    ingress.bearers.take(
        TOKEN, Bearer(access="staff", user="ann", client="app", resource="", ends=time() + 60)
    )
    assert ingress.now.bearers.known(TOKEN) is not None
    assert policy.now.bearers.known(TOKEN) is None


def test_every_view_sees_a_change_at_once_whichever_reads_first() -> None:
    projection = loaded()
    one, two = ConfigView(projection), ConfigView(projection)
    assert one.now.principal_for(key_digest_of("s"), time()) is not None
    assert two.now.principal_for(key_digest_of("s"), time()) is not None
    revoked = DECLARED.keys["bot"].model_copy(update={"revoked": True})
    projection.apply_change(Change(f"{KEY_PREFIX}bot", revoked.model_dump_json().encode(), 2))
    assert two.now.principal_for(key_digest_of("s"), time()) is None
    assert one.now.principal_for(key_digest_of("s"), time()) is None
    assert (one.now.version, two.now.version) == (2, 2)


def test_a_view_is_empty_until_the_first_load_is_complete() -> None:
    projection = ConfigProjection()
    view = ConfigView(projection)
    projection.apply_change(Change(CONFIGURATION, DECLARED.model_dump_json().encode(), 1))
    assert list(view.now.keys) == []
    projection.apply_change(None)
    assert list(view.now.keys) == ["bot"]
