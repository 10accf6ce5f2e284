"""Callers found by their authorization header: valid as long as their key, and never for others."""

from collections.abc import Mapping
from time import time
from types import MappingProxyType
from typing import Any

import pytest

from harness.builders.configurations import ConfigFeed, configured
from toolbus_common.access.config_snapshot import ConfigView, key_digest_of
from toolbus_ingress.auth.known_callers import KnownCallers
from toolbus_ingress.auth.request_context import Caller

SECRET = "tbk_bot_secret"
NONE: Mapping[bytes, bytes] = MappingProxyType({})
HEADERS = {b"authorization": b"Bearer " + SECRET.encode()}


class Edge:
    """One key of a configuration, known by its header."""

    def __init__(self, **key: Any) -> None:
        self.directory = ConfigView()
        self.feed = ConfigFeed(self.directory.projection.apply_change)
        self.feed.declare(configured(servers={"s": {"url": "http://127.0.0.1:9/mcp"}}, **key))
        self.feed.key("bot", key_digest_of(SECRET), "s__*")
        self.feed.loaded()
        self.callers = KnownCallers(self.directory)

    def caller(self, server: str = "", holder: str = "") -> Caller:
        principal = self.directory.now.principal("bot")
        return Caller(key_digest_of(SECRET), "bot", principal.seen, server, holder=holder)

    def found(
        self, server: str = "", query: bytes = b"", more: Mapping[bytes, bytes] = NONE
    ) -> Caller | None:
        return self.callers.find({**HEADERS, **more}, server, query)


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    edge.callers.find(HEADERS, "", b"")
    edge.callers.add(HEADERS, b"", edge.caller())
    return edge


def test_a_key_is_found_by_its_header(edge: Edge) -> None:
    assert edge.found() == edge.caller()


def test_another_secret_is_not_found(edge: Edge) -> None:
    assert edge.found(more={b"authorization": b"Bearer tbk_bot_secreT"}) is None
    assert edge.callers.find({}, "", b"") is None


def test_a_revoked_key_is_not_found(edge: Edge) -> None:
    edge.feed.key("bot", key_digest_of(SECRET), "s__*", revoked=True)
    assert edge.found() is None


def test_changed_grants_are_looked_up_again(edge: Edge) -> None:
    edge.feed.key("bot", key_digest_of(SECRET), "s__read")
    assert edge.found() is None


def test_a_changed_configuration_is_looked_up_again(edge: Edge) -> None:
    edge.feed.declare(configured())
    assert edge.found() is None


def test_an_expired_key_is_not_found(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        edge.callers, "_callers", {each: (caller, time() - 1) for each, (caller, _) in
                                   edge.callers._callers.items()}
    )  # fmt: skip
    assert edge.found() is None


def test_an_endpoint_of_another_server_is_not_found(edge: Edge) -> None:
    assert edge.found(server="s") is None


@pytest.mark.parametrize("header", [b"x-toolbus-servers", b"x-toolbus-tools", b"x-toolbus-program"])
def test_a_request_with_its_own_restrictions_is_not_found(edge: Edge, header: bytes) -> None:
    assert edge.found(more={header: b""}) is None


def test_a_request_with_a_query_is_not_found(edge: Edge) -> None:
    assert edge.found(query=b"mode=code") is None


def test_a_person_is_never_stored(edge: Edge) -> None:
    callers = KnownCallers(edge.directory)
    callers.add(HEADERS, b"", edge.caller(holder="staff:ann"))
    assert callers.find(HEADERS, "", b"") is None
