"""The current authorizer: changes apply at once, unchanged results stay cached."""

from time import time

import pytest

from toolbus_common.access.config_snapshot import ConfigView, hash_of, key_digest_of
from toolbus_common.config import Configuration, Key, Server
from toolbus_common.contracts import TOOLS_CALL, CatalogEntry, Listing, ServerState
from toolbus_common.errors import UnauthorizedError, UnknownToolError
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION, KEY_PREFIX
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.main import AuthorizerProvider

SERVER = Server(url="http://127.0.0.1:1/mcp")


class Court:
    """A bench that hears of a server with two tools, and of the keys ann and bob."""

    def __init__(self) -> None:
        self.config = ConfigView()
        self.bench = AuthorizerProvider(self.config)
        self._revision = 0
        self.declare(SERVER)
        self.key("ann", "*")
        self.key("bob", "*")
        self.config.projection.apply_change(None)
        self.offer("read", "write")

    def declare(self, server: Server) -> None:
        self._change(CONFIGURATION, Configuration(servers={"docs": server}).model_dump_json())

    def key(self, name: str, *tools: str, revoked: bool = False) -> None:
        made = Key(tools=tools, secret_hash=hash_of(key_digest_of(name)), revoked=revoked)
        self._change(f"{KEY_PREFIX}{name}", made.model_dump_json())

    def offer(self, *tools: str) -> None:
        offered = tuple(CatalogEntry(name=name, definition={"name": name}) for name in tools)
        listing = Listing(server="docs", state=ServerState.READY, tools=offered)
        self.bench.apply_catalogue(Change("docs", listing.encode(), 1))

    def decide(self, name: str, tool: str = "read") -> Admission:
        return self.bench.authorizer.authorize(
            key_digest_of(name), "docs", TOOLS_CALL, tool, time()
        )

    def _change(self, name: str, value: str) -> None:
        self._revision += 1
        self.config.projection.apply_change(Change(name, value.encode(), self._revision))


def test_a_revoked_key_is_denied_at_once_and_other_cached_plans_stay() -> None:
    court = Court()
    court.decide("ann")
    kept = court.decide("bob")
    court.key("ann", "*", revoked=True)
    with pytest.raises(UnauthorizedError):
        court.decide("ann")
    assert court.decide("bob") is kept


def test_a_key_with_changed_grants_is_authorized_by_them() -> None:
    court = Court()
    court.decide("ann", "write")
    court.key("ann", "docs__read")
    court.decide("ann", "read")
    with pytest.raises(UnknownToolError):
        court.decide("ann", "write")


def test_a_changed_configuration_or_catalogue_is_authorized_again() -> None:
    court = Court()
    court.decide("ann", "write")
    court.declare(SERVER.model_copy(update={"expose": ("read",)}))
    with pytest.raises(UnknownToolError):
        court.decide("ann", "write")
    court.decide("ann", "read")
    court.offer("write")
    with pytest.raises(UnknownToolError):
        court.decide("ann", "read")


def test_an_older_authorizer_decides_by_its_own_snapshot() -> None:
    """A suspended call keeps its authorizer: it records the version of the decision."""
    court = Court()
    before = court.bench.authorizer
    court.key("ann", "docs__read")
    with pytest.raises(UnknownToolError):
        court.decide("ann", "write")
    assert before.authorize(key_digest_of("ann"), "docs", TOOLS_CALL, "write", time())
    with pytest.raises(UnknownToolError):
        court.decide("ann", "write")
    assert court.bench.authorizer.version == before.version + 1
