"""Cached access tokens: their holders as principals, revocation, eviction."""

from time import time

import pytest

from harness.builders.access_tokens import bearer
from harness.builders.configurations import configured
from toolbus_common.access.config_snapshot import (
    ConfigSnapshot,
    hash_of,
    key_digest_of,
)
from toolbus_common.access.token_cache import TokenCache
from toolbus_common.nats.kv_bucket import Change

TOKEN = "eyJh.eyJp.c2ln"


def test_a_tokens_holder_is_a_principal_with_its_hierarchy() -> None:
    made = configured(
        customers={"acme": {}},
        teams={"ops": {"customer": "acme", "tools": ["docs__*"]}},
        users={"ann": {"deny": ["docs__burn"]}},
        access={"staff": {"team": "ops", "tools": ["*"]}},
    )
    bearers = TokenCache()
    bearers.take(hash_of(key_digest_of(TOKEN)), bearer())
    snapshot = ConfigSnapshot.of(made, bearers=bearers)
    principal = snapshot.principal_for(key_digest_of(TOKEN), time())
    assert principal is not None
    assert (principal.key, principal.customer, principal.own.user) == ("staff:ann", "acme", "ann")
    assert [level for level, _ in principal.levels][1:] == ["user:ann", "team:ops", "customer:acme"]
    covered = [principal.bounds.cover(name) for name in ("docs__read", "docs__burn", "mail__send")]
    assert covered == [True, False, False]
    assert snapshot.principal_for(key_digest_of(TOKEN), time() + 700) is None
    bearers.take("other", bearer(user="bob", handle="3f"))
    assert snapshot.principal_of("staff:3f", time()) is not None  # a person who is not configured
    assert snapshot.principal_of("staff:bob", time()) is None
    assert snapshot.principal_of("gone:ann", time()) is None
    assert (
        ConfigSnapshot.of(configured(), bearers=bearers).principal_for(key_digest_of(TOKEN), time())
        is None
    )


def test_a_revoked_token_is_reported_to_its_holders_streams() -> None:
    bearers, gone = TokenCache(), list[str]()
    bearers.on_gone = gone.append
    bearers.apply_change(Change("hash", bearer().encode(), 1))
    assert bearers.known("hash") == bearers.find("hash", time())
    bearers.apply_change(Change("hash", None, 2))
    assert (bearers.known("hash"), gone) == (None, ["staff:ann"])
    bearers.apply_change(Change("hash", b"{}", 3))
    assert bearers.known("hash") is None


def test_expired_tokens_are_evicted() -> None:
    bearers = TokenCache()
    for n in range(5000):
        bearers.take(f"{n}", bearer(ends=time() - 1, grant="g"))
    assert len(bearers.of_grant("g")) < 1100


def test_a_person_without_a_token_is_forgotten() -> None:
    bearers = TokenCache()
    for name in ("one", "two"):
        bearers.apply_change(Change(name, bearer(handle="h").encode(), 1))
    held = bearer(handle="h").name
    bearers.apply_change(Change("one", None, 2))
    assert bearers.user_of(held) == "ann"
    bearers.apply_change(Change("two", None, 3))
    with pytest.raises(KeyError):
        bearers.user_of(held)
