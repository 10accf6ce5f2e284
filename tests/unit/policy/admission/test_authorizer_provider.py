"""The current authorizer: changes apply at once, unchanged results stay cached."""

from time import time

import pytest

from harness.builders.configurations import ConfigFeed, listing_of
from toolbus_common.access.config_snapshot import ConfigView, key_digest_of
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import TOOLS_CALL
from toolbus_common.errors import UnauthorizedError, UnknownToolError
from toolbus_common.nats.kv_bucket import Change
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.main import AuthorizerProvider

SERVER = Server(url="http://127.0.0.1:1/mcp")


class Decisions:
    """A provider with a server of two tools, and the keys ann and bob."""

    def __init__(self) -> None:
        config = ConfigView()
        self.provider = AuthorizerProvider(config)
        self._feed = ConfigFeed(config.projection.apply_change)
        self.declare(SERVER)
        self.key("ann", "*")
        self.key("bob", "*")
        self._feed.loaded()
        self.offer("read", "write")

    def declare(self, server: Server) -> None:
        self._feed.declare(Configuration(servers={"docs": server}))

    def key(self, name: str, *tools: str, revoked: bool = False) -> None:
        self._feed.key(name, key_digest_of(name), *tools, revoked=revoked)

    def offer(self, *tools: str) -> None:
        self.provider.apply_catalogue(Change("docs", listing_of("docs", *tools).encode(), 1))

    def decide(self, name: str, tool: str = "read") -> Admission:
        return self.provider.authorizer.authorize(
            key_digest_of(name), "docs", TOOLS_CALL, tool, time()
        )


def test_a_revoked_key_is_denied_at_once_and_other_cached_plans_stay() -> None:
    decisions = Decisions()
    decisions.decide("ann")
    kept = decisions.decide("bob")
    decisions.key("ann", "*", revoked=True)
    with pytest.raises(UnauthorizedError):
        decisions.decide("ann")
    assert decisions.decide("bob") is kept


def test_a_key_with_changed_grants_is_authorized_by_them() -> None:
    decisions = Decisions()
    decisions.decide("ann", "write")
    decisions.key("ann", "docs__read")
    decisions.decide("ann", "read")
    with pytest.raises(UnknownToolError):
        decisions.decide("ann", "write")


def test_a_changed_configuration_or_catalogue_is_authorized_again() -> None:
    decisions = Decisions()
    decisions.decide("ann", "write")
    decisions.declare(SERVER.model_copy(update={"expose": ("read",)}))
    with pytest.raises(UnknownToolError):
        decisions.decide("ann", "write")
    decisions.decide("ann", "read")
    decisions.offer("write")
    with pytest.raises(UnknownToolError):
        decisions.decide("ann", "read")


def test_an_older_authorizer_decides_by_its_own_snapshot() -> None:
    # A suspended call keeps its authorizer: it records the version of the decision.
    decisions = Decisions()
    before = decisions.provider.authorizer
    decisions.key("ann", "docs__read")
    with pytest.raises(UnknownToolError):
        decisions.decide("ann", "write")
    assert before.authorize(key_digest_of("ann"), "docs", TOOLS_CALL, "write", time())
    with pytest.raises(UnknownToolError):
        decisions.decide("ann", "write")
    assert decisions.provider.authorizer.version == before.version + 1
