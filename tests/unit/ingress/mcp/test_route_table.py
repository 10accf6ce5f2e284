"""The plans of names that agents call: they follow the catalogue and the configuration."""

from typing import Any

import pytest

from harness.builders.configurations import ConfigFeed, configured, listing_of
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.config.servers.timeouts import WAIT_SECONDS
from toolbus_common.contracts import TOOLS_CALL, CatalogEntry, Listing
from toolbus_common.errors import UnknownToolError
from toolbus_common.nats.kv_bucket import Change
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.mcp.request_target import RouteTable

SCHEMA = {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


class Edge:
    """One server with one tool."""

    def __init__(self) -> None:
        directory = ConfigView()
        self.catalogue = Catalogue(directory)
        self.routes = RouteTable(self.catalogue)
        self._feed = ConfigFeed(directory.projection.apply_change)
        self.declare()
        self._feed.loaded()
        self._revision = 100
        self.list(listing_of("s", "read"))

    def declare(self, **server: Any) -> None:
        self._feed.declare(configured(servers={"s": {"url": "http://127.0.0.1:9/mcp", **server}}))

    def list(self, listing: Listing) -> None:
        self._revision += 1
        self.catalogue.apply(Change(listing.server, listing.encode(), self._revision))


def test_a_listed_tool_keeps_its_plan() -> None:
    edge = Edge()
    plan = edge.routes.plan(TOOLS_CALL, "s__read", "")
    assert (plan.server, plan.name) == ("s", "read")
    assert edge.routes.plan(TOOLS_CALL, "s__read", "") is plan


def test_the_endpoint_of_one_server_has_its_own_names() -> None:
    edge = Edge()
    assert edge.routes.plan(TOOLS_CALL, "read", "s").name == "read"
    assert edge.routes.plan(TOOLS_CALL, "s__read", "s").name == "s__read"


def test_a_name_that_no_server_lists_is_not_stored() -> None:
    edge = Edge()
    first, second = (edge.routes.plan(TOOLS_CALL, "s__gone", "") for _ in range(2))
    assert first == second
    assert first is not second


def test_an_impossible_name_is_unknown() -> None:
    with pytest.raises(UnknownToolError):
        Edge().routes.plan(TOOLS_CALL, "no name", "")


def test_a_changed_timeout_changes_the_plan() -> None:
    edge = Edge()
    edge.routes.plan(TOOLS_CALL, "s__read", "")
    edge.declare(timeout=7)
    assert edge.routes.plan(TOOLS_CALL, "s__read", "").seconds == 7 + WAIT_SECONDS


def test_an_alias_replaces_the_name() -> None:
    edge = Edge()
    edge.routes.plan(TOOLS_CALL, "s__read", "")
    edge.declare(tools={"read": {"alias": "look"}})
    assert edge.routes.plan(TOOLS_CALL, "s__look", "").name == "read"


def test_a_changed_definition_changes_the_required_headers() -> None:
    edge = Edge()
    assert edge.routes.plan(TOOLS_CALL, "s__read", "").param_headers == {}
    entry = CatalogEntry(name="read", definition={"name": "read", "inputSchema": SCHEMA})
    edge.list(listing_of("s").model_copy(update={"tools": (entry,)}))
    plan = edge.routes.plan(TOOLS_CALL, "s__read", "")
    assert plan.param_headers == {"region": ("region",)}
