"""Definition pins on a real bus: first sight, decisions, several executors, lost pins."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from harness.builders.pinned_listings import (
    SCHEMA,
    PinningExecutor,
    executor,
    held,
    listed_names,
    listing,
    offered,
)
from harness.waits import until, until_async
from toolbus_cli import config_client as desks
from toolbus_cli.state_dir import State
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    CatalogEntry,
    DefinitionChanged,
    DefinitionPinned,
    Pin,
    ServerState,
)
from toolbus_common.contracts.records.pin_names import first_key, pin_key
from toolbus_common.crypto.canonical_json import digest_of
from toolbus_common.definitions.pins import Case, Pinboard, at_pins
from toolbus_common.errors import ConflictError
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings


@pytest.fixture
async def board(operator: Bus, settings: Settings) -> AsyncIterator[Pinboard]:
    async with desks.opened(operator, State(settings.state_dir)) as repository:
        declared = {"servers": {"docs": {"url": "http://127.0.0.1:1/mcp"}}}
        await repository.apply(Configuration.model_validate(declared), "file")
        yield await at_pins(repository)


async def case_of(board: Pinboard, tool: str) -> Case:
    (case,) = await board.cases(f"docs__{tool}", everything=True)
    return case


async def test_definitions_at_first_sight_are_approved_and_later_ones_are_quarantined(
    settings: Settings,
) -> None:
    async with executor(settings) as one:
        found = await one.lists(offered("a"), offered("b"), prompts=(offered("p"),))
        assert (listed_names(found), held(found)) == (["a", "b"], {})
        assert sorted(one.published_tools(DefinitionPinned)) == ["a", "b", "p"]
        found = await one.lists(offered("a"), offered("b", "now else"), offered("c"))
        assert listed_names(found) == ["a"]
        assert held(found) == {"b": "changed since it was approved", "c": "not approved yet"}
        assert sorted(one.published_tools(DefinitionChanged)) == ["b", "c"]
        again = await one.lists(offered("a"), offered("b", "now else"), offered("c"))
        assert again == found
        assert len(one.published_tools(DefinitionChanged)) == 2, "published once"


async def test_a_repaired_definition_is_pinned_and_compared_as_sent(settings: Settings) -> None:
    def repaired(sent: dict[str, Any], definition: dict[str, Any]) -> CatalogEntry:
        return CatalogEntry(name="a", definition=definition, digest=digest_of(sent), sent=sent)

    sent = {"name": "a", "description": None, "inputSchema": SCHEMA}
    fit = {"name": "a", "inputSchema": SCHEMA}
    async with executor(settings) as one:
        assert listed_names(await one.lists(repaired(sent, fit))) == ["a"]
        entry = await one.bucket.get(pin_key("tools", "docs", "a"))
        assert entry is not None
        assert entry.value is not None
        pin = Pin.decode(entry.value)
        assert (pin.definition, pin.digest) == (sent, digest_of(sent))
        # A later version with other repairs finds the same pin; another definition does not.
        assert listed_names(await one.lists(repaired(sent, {**fit, "description": ""}))) == ["a"]
        found = await one.lists(repaired({**sent, "title": None}, fit))
        assert held(found) == {"a": "changed since it was approved"}


async def test_a_changed_prompt_is_quarantined_like_a_tool(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(prompts=(offered("p"),))
        found = await one.lists(prompts=(offered("p", "else"),))
        assert (found.prompts, held(found)) == ((), {"p": "changed since it was approved"})


async def test_a_removed_tool_retains_its_pin(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
        assert listed_names(await one.lists(offered("a"))) == ["a"]
        found = await one.lists(offered("a"), offered("b", "else"))
        assert held(found) == {"b": "changed since it was approved"}
        assert listed_names(await one.lists(offered("a"), offered("b"))) == ["a", "b"]


async def test_the_mode_each_quarantines_everything_and_trust_nothing(settings: Settings) -> None:
    async with executor(settings, "each") as one:
        assert held(await one.lists(offered("a"))) == {"a": "not approved yet"}
    async with executor(settings, "trust") as one:
        found = await one.lists(offered("a", "x"), offered("b"))
        assert (listed_names(found), held(found)) == (["a", "b"], {})
    async with executor(settings, "first") as one:
        assert held(await one.lists(offered("a"))) == {"a": "not approved yet"}, (
            "the server is not new"
        )


async def test_a_restarted_executor_compares_with_the_pins(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
    async with executor(settings) as two:
        found = await two.lists(offered("a"), offered("b", "else"), offered("c"))
        assert (listed_names(found), sorted(held(found))) == (["a"], ["b", "c"])


async def test_the_first_entries_of_a_server_that_listed_nothing_are_its_first_listing(
    settings: Settings,
) -> None:
    async with executor(settings) as one:
        assert listed_names(await one.lists()) == []
    async with executor(settings) as two, executor(settings) as three:
        assert listed_names(await two.lists()) == [], "still nothing after a restart"
        found = await asyncio.gather(two.lists(offered("a")), three.lists(offered("a")))
        assert [(listed_names(each), held(each)) for each in found] == [(["a"], {})] * 2
        found = (
            await two.lists(offered("a", "else"), offered("b")),
            await three.lists(offered("a", "else"), offered("b")),
        )
        changed = {"a": "changed since it was approved", "b": "not approved yet"}
        assert [held(each) for each in found] == [changed] * 2


async def test_a_server_that_listed_nothing_under_review_is_not_trusted_later(
    settings: Settings,
) -> None:
    async with executor(settings, "each") as one:
        await one.lists()
    async with executor(settings) as two:
        assert held(await two.lists(offered("a"))) == {"a": "not approved yet"}


async def test_only_one_of_two_executors_sees_the_server_first(settings: Settings) -> None:
    async with executor(settings) as one, executor(settings) as two:
        first = one.lists(offered("a", "one"), offered("b"), offered("only one"))
        second = two.lists(offered("a", "two"), offered("b"), offered("only two"))
        await asyncio.gather(first, second)
        pinned = sorted(
            one.published_tools(DefinitionPinned) + two.published_tools(DefinitionPinned)
        )
        assert pinned in (["a", "b", "only one"], ["a", "b", "only two"]), "one complete listing"
        lists = [listing(offered("a", word), offered("b"), offered(f"only {word}"))
                 for word in ("one", "two")]  # fmt: skip

        def weighed(each: PinningExecutor) -> list[list[str]]:
            known = (found.model_copy(update={"known": True}) for found in lists)
            return sorted(listed_names(each.pins.apply_pins(found, "first")) for found in known)

        for each in (one, two):  # the other's pins arrive later than its listing ends
            await until(lambda each=each: pinned in weighed(each), "the pins")  # type: ignore[misc]
            assert weighed(each) == [pinned, ["b"]]


async def test_pins_not_written_before_a_crash_are_created_from_the_first_listing(
    settings: Settings,
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
        await one.bucket.delete(pin_key("tools", "docs", "a"))
        await one.bucket.delete(pin_key("tools", "docs", "b"))
    async with executor(settings) as two:
        found = await two.lists(offered("a"), offered("b", "else"))
        assert (listed_names(found), held(found)) == (["a"], {"b": "not approved yet"})


async def test_lost_pins_are_not_approved_again(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
        for key in (first_key("docs"), *(pin_key("tools", "docs", name) for name in "ab")):
            await one.bucket.delete(key)

        async def all_held() -> bool:
            return sorted(held(await one.entry.now())) == ["a", "b"]

        await until_async(all_held, "quarantined without another listing")
    async with executor(settings) as two:
        found = await two.lists(offered("a"), offered("b"))
        assert (listed_names(found), sorted(held(found))) == ([], ["a", "b"])
        assert two.published_tools(DefinitionPinned) == []


async def test_an_unreadable_pin_approves_nothing(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        await one.bucket.put(pin_key("tools", "docs", "a"), b"{nonsense")

        async def is_held() -> bool:
            return "a" in held(await one.entry.now())

        await until_async(is_held)


async def test_an_approval_lists_exactly_the_approved_definition(
    settings: Settings, board: Pinboard
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
        await one.lists(offered("a", "new"), offered("b"))
        case = await case_of(board, "a")
        assert case.pin.definition["description"] == ""
        await board.approve(case)

        async def is_listed() -> bool:
            return listed_names(await one.entry.now()) == ["a", "b"]

        await until_async(is_listed)
        assert one.entry.listed is not None
        await until(lambda: not one.entry.listed.quarantined, "the executor allows the call")  # type: ignore[union-attr]
        assert held(await one.lists(offered("a"), offered("b"))) == {
            "a": "changed since it was approved"
        }, "the old definition is no longer approved"


async def test_a_definition_changed_after_it_was_shown_is_not_approved(
    settings: Settings, board: Pinboard
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        await one.lists(offered("a", "harmless"))
        case = await case_of(board, "a")
        found = await one.lists(offered("a", "harmful"))
        with pytest.raises(ConflictError, match="changed since it was shown"):
            await board.approve(case)
        assert await one.entry.now() == found


async def test_an_approval_takes_no_name_of_a_listed_tool(
    settings: Settings, board: Pinboard
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("greet"))
        found = await one.lists(offered("Greet"), offered("greet"), offered("leave"))
        with pytest.raises(ConflictError, match=r"docs__greet' would no longer be listed: .* like"):
            await board.approve(await case_of(board, "leave"), await case_of(board, "Greet"))
        assert await one.entry.now() == found, "neither is approved"
        await board.approve(await case_of(board, "leave"))


async def test_the_second_of_two_operators_gets_an_error(
    settings: Settings, board: Pinboard
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        await one.lists(offered("a", "new"))
        case = await case_of(board, "a")
        await board.reject(case)
        with pytest.raises(ConflictError, match="Another operator decided"):
            await board.approve(case)


async def test_a_rejected_definition_is_quarantined_in_every_mode(
    settings: Settings, board: Pinboard
) -> None:
    for mode in ("trust", "first"):
        async with executor(settings, mode) as one:
            await one.lists(offered("a", mode), offered("b"))
            await board.reject(await case_of(board, "a"))

            async def gone(one: PinningExecutor = one) -> bool:
                return held(await one.entry.now()).get("a") == "rejected"

            await until_async(gone, mode)
            assert held(await one.lists(offered("a", mode), offered("b")))["a"] == "rejected"


async def test_a_rejected_definition_can_be_approved(settings: Settings, board: Pinboard) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        await board.reject(await case_of(board, "a"))
        await board.approve(await case_of(board, "a"))

        async def back() -> bool:
            return listed_names(await one.entry.now()) == ["a"]

        await until_async(back)


async def test_a_pin_records_definition_operator_and_time(
    settings: Settings, board: Pinboard
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        entry = await one.bucket.get(pin_key("tools", "docs", "a"))
        assert entry is not None
        assert entry.value is not None
        pin = Pin.decode(entry.value)
        assert (pin.by, pin.definition, pin.digest) == (
            "first listing", offered("a").definition, offered("a").digest,
        )  # fmt: skip
        await one.lists(offered("a", "new"))
        await board.approve(await case_of(board, "a"))
        decided = (await case_of(board, "a")).pin
        assert (decided.definition, decided.by) == (offered("a", "new").definition, desks.me())
        assert decided.at > pin.at


async def test_a_catalogue_older_than_pins_is_pinned_when_its_server_connects(
    settings: Settings,
) -> None:
    async with executor(settings) as one:
        old = listing(CatalogEntry(name="a", definition=offered("a").definition))
        await one.entry._catalogue.put("docs", old.encode())
        await one.entry.publish(old.model_copy(update={"state": ServerState.STALE}))
        assert listed_names(await one.entry.now()) == ["a"], "not connected yet"
        assert listed_names(await one.lists(offered("a"))) == ["a"]
        assert held(await one.lists(offered("a", "else"))) == {"a": "changed since it was approved"}


async def test_a_server_that_always_changes_does_not_fill_the_stream(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        for turn in range(3):
            found = await one.lists(*(offered(f"t{n}", str(turn)) for n in range(700)))
            assert len(found.quarantined) == 700
        assert 1000 <= len(one.published_tools(DefinitionChanged)) < 2100


async def test_a_trusted_listing_older_than_pins_stays_listed(settings: Settings) -> None:
    async with executor(settings, "trust") as one:
        await one.entry.publish(listing(CatalogEntry(name="a", definition={"name": "a"})))
        assert listed_names(await one.entry.now()) == ["a"]


async def test_five_hundred_tools_are_pinned_with_one_entry_each(settings: Settings) -> None:
    async with executor(settings) as one:
        tools = [offered(f"tool.{number}", "d" * 1000) for number in range(500)]
        assert len(listed_names(await one.lists(*tools))) == 500
        assert len(one.published_tools(DefinitionPinned)) == 500
    async with AsyncExitStack() as stack:
        again = await stack.enter_async_context(executor(settings))
        assert held(await again.lists(*tools)) == {}


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a_b"), ("a.b", "a=2Eb"), ("a", "A"), ("..", ".")]
)
def test_different_names_have_different_entries(one: str, other: str) -> None:
    assert pin_key("tools", "docs", one) != pin_key("tools", "docs", other)


def test_the_name_of_an_entry_is_a_valid_bucket_key() -> None:
    assert pin_key("tools", "docs", ".a..b.") == "tools.docs.=2Ea=2E=2Eb=2E"
