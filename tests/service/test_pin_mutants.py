"""Mutations of approved definitions: none is listed, none can be called."""

import json
import random
from time import time
from typing import Any

import pytest

from fixture_server import methods
from harness.samples.definition_mutants import mutant, reordered, same
from toolbus_common.access.config_snapshot import ConfigView, hash_of, key_digest_of
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.config import Configuration
from toolbus_common.contracts import TOOLS_CALL, Listing, ProtocolFamily
from toolbus_common.contracts.records.pin_names import pin_key
from toolbus_common.errors import UnknownToolError
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION
from toolbus_executor.catalog.definition_pins import PinState, apply_pins, uncallable
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.listing import listed
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_policy.admission.authorizer import Authorizer

MUTANTS = 1000
SEED = 20_260_728
KEY_DIGEST = key_digest_of("tbk_bot_a-secret-for-mutants")
SERVER = Described("modern", "2026-07-28", capabilities={"tools": {}})
EVERYTHING = EffectiveGrants(())
DEFINITIONS = [tool.listed for tool in methods.TOOLS.values()]


class Chain:
    """The handling of a list in executor, policy and ingress, by the code they run."""

    def __init__(self) -> None:
        key = {"secret_hash": hash_of(KEY_DIGEST), "tools": ["*"]}
        declared = {"servers": {"s": {"url": "http://127.0.0.1:1/mcp"}}, "keys": {"bot": key}}
        self.directory = ConfigView()
        self.catalogue = Catalogue(self.directory)
        written = Configuration.model_validate(declared).model_dump_json().encode()
        for change in (Change(CONFIGURATION, written, 1), None):
            self.directory.projection.apply_change(change)
        self.pins: dict[str, PinState] = {}

    async def lists(self, definitions: list[Any]) -> Listing:
        """Return the listing that executor publishes and the other two receive."""

        async def page(_method: str, _cursor: str | None) -> dict[str, Any]:
            return {"tools": json.loads(json.dumps(definitions))}

        found = (await listed("s", SERVER, page)).model_copy(update={"known": True})
        found = apply_pins(found, "first", self.pins)
        self.refused = uncallable(found)
        self.catalogue.apply(Change("s", found.encode(), 1))
        self.authorizer = Authorizer(self.directory.now, {"s": Listing.decode(found.encode())})
        return found

    def listed(self) -> set[str]:
        raw = self.catalogue.list_body("tools/list", EVERYTHING, "s", ProtocolFamily.LEGACY)
        return {tool["name"] for tool in json.loads(raw)["tools"]}

    def callable(self, name: str) -> bool:
        """Return whether ingress and policy would allow a call."""
        server, own = self.catalogue.names.meant(name, at="s")
        try:
            self.authorizer.authorize(KEY_DIGEST, server, TOOLS_CALL, own, time())
        except UnknownToolError:
            return False
        return True


@pytest.fixture
async def chain() -> Chain:
    """Approve every first definition."""
    chain = Chain()
    first = await chain.lists(DEFINITIONS)
    pins = {pin_key("tools", "s", each.name): PinState(each.digest) for each in first.quarantined}
    chain.pins = pins
    assert len((await chain.lists(DEFINITIONS)).tools) == len(DEFINITIONS)
    return chain


async def test_no_mutant_of_an_approved_definition_is_listed_or_callable(chain: Chain) -> None:
    chance = random.Random(SEED)
    unchanged = DEFINITIONS[0]
    for _ in range(MUTANTS):
        pinned = chance.choice(DEFINITIONS[1:])
        changed = mutant(pinned, chance)
        await chain.lists([unchanged, changed])
        assert chain.listed() == {unchanged["name"]}, changed
        for name in {str(pinned["name"]), str(changed.get("name"))}:
            assert not chain.callable(name), changed
        if changed.get("name") == pinned["name"]:
            assert (TOOLS_CALL, pinned["name"]) in chain.refused, "rejected by the executor too"
        assert chain.callable(unchanged["name"]), "the unchanged definition"


async def test_the_same_definition_in_another_order_stays_callable(chain: Chain) -> None:
    chance = random.Random(SEED)
    for _ in range(20):
        published = await chain.lists([reordered(each, chance) for each in DEFINITIONS])
        assert published.quarantined == ()
        assert all(chain.callable(each["name"]) for each in DEFINITIONS)


def test_mutants_are_of_every_kind() -> None:
    """Check the generator: one that changes a single member would prove little."""
    chance = random.Random(SEED)
    pinned = next(each for each in DEFINITIONS if each["name"] == "test_structured_content")
    found = [mutant(pinned, chance) for _ in range(500)]
    assert not any(same(each, pinned) for each in found)
    changed = {name for each in found for name in pinned if not same(each.get(name), pinned[name])}
    assert changed == set(pinned)
    assert any(each.keys() - pinned.keys() for each in found)
