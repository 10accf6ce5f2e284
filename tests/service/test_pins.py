"""Pins on a real bus: who saw a server first, who decides, and what is left when pins are lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from harness.audit.events import bus_of
from harness.services.call_runner import RecordedEvents
from harness.waits import until, until_async
from toolbus_cli import config_client as desks
from toolbus_cli.clients.pins import Case, Pinboard, at_pins
from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import State
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    CatalogEntry,
    DefinitionChanged,
    DefinitionPinned,
    Listing,
    Pin,
    ServerState,
)
from toolbus_common.contracts.records.pin_names import first_key, pin_key
from toolbus_common.crypto.canonical_json import digest_of
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import CATALOGUE, PINS
from toolbus_common.settings import Settings
from toolbus_executor.catalog.definition_pins import Pins
from toolbus_executor.catalog.publisher import CatalogPublisher

SCHEMA = {"type": "object"}


def offered(name: str, description: str = "") -> CatalogEntry:
    definition = {"name": name, "description": description, "inputSchema": SCHEMA}
    return CatalogEntry(name=name, definition=definition, digest=digest_of(definition))


def listing(*tools: CatalogEntry, prompts: tuple[CatalogEntry, ...] = ()) -> Listing:
    return Listing(server="docs", state=ServerState.READY, tools=tools, prompts=prompts)


def shown(found: Listing | None) -> list[str]:
    return [tool.name for tool in found.tools] if found else []


def held(found: Listing | None) -> dict[str, str]:
    return {each.name: each.why for each in found.quarantined} if found else {}


@dataclass
class Executor:
    """As much of an executor as pins concern: the watched pins, and one server's entry."""

    pins: Pins
    entry: CatalogPublisher
    bucket: Bucket
    events: RecordedEvents

    async def lists(self, *tools: CatalogEntry, prompts: tuple[CatalogEntry, ...] = ()) -> Listing:
        """What becomes of what the server lists."""
        await self.entry.publish(
            await self.entry.take(listing(*tools, prompts=prompts), self.bucket)
        )
        found = await self.entry.now()
        assert found is not None
        return found

    def said(self, kind: type[Any]) -> list[str]:
        return [event.tool for event in self.events.published if isinstance(event, kind)]


@asynccontextmanager
async def executor(settings: Settings, mode: str = "first") -> AsyncIterator[Executor]:
    async with bus_of("executor", settings) as bus:
        events = RecordedEvents()
        pins, bucket = Pins(events), await bus.bucket(PINS)
        entry = CatalogPublisher("docs", mode, await bus.bucket(CATALOGUE), pins, events)
        pins.on_change = lambda _server: entry.reapply_pins()
        caught_up = asyncio.Event()

        async def watch() -> None:
            async for change in bucket.watch():
                pins.apply_change(change)
                if change is None:
                    caught_up.set()

        watching = asyncio.create_task(watch())
        await caught_up.wait()
        try:
            yield Executor(pins, entry, bucket, events)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await entry.close(removed=False)


@pytest.fixture
async def board(operator: Bus, settings: Settings) -> AsyncIterator[Pinboard]:
    async with desks.opened(operator, State(settings.state_dir)) as repository:
        declared = {"servers": {"docs": {"url": "http://127.0.0.1:1/mcp"}}}
        await repository.apply(Configuration.model_validate(declared), "file")
        yield await at_pins(repository)


async def case_of(board: Pinboard, tool: str) -> Case:
    (case,) = await board.cases(f"docs__{tool}", everything=True)
    return case


async def test_what_is_seen_first_is_pinned_and_what_comes_later_is_held(
    settings: Settings,
) -> None:
    async with executor(settings) as one:
        found = await one.lists(offered("a"), offered("b"), prompts=(offered("p"),))
        assert (shown(found), held(found)) == (["a", "b"], {})
        assert sorted(one.said(DefinitionPinned)) == ["a", "b", "p"]
        found = await one.lists(offered("a"), offered("b", "now else"), offered("c"))
        assert shown(found) == ["a"]
        assert held(found) == {"b": "changed since it was approved", "c": "not approved yet"}
        assert sorted(one.said(DefinitionChanged)) == ["b", "c"]
        again = await one.lists(offered("a"), offered("b", "now else"), offered("c"))
        assert again == found
        assert len(one.said(DefinitionChanged)) == 2, "said once"


async def test_a_repaired_definition_is_pinned_and_compared_as_it_was_sent(
    settings: Settings,
) -> None:
    def repaired(sent: dict[str, Any], definition: dict[str, Any]) -> CatalogEntry:
        return CatalogEntry(name="a", definition=definition, digest=digest_of(sent), sent=sent)

    sent = {"name": "a", "description": None, "inputSchema": SCHEMA}
    fit = {"name": "a", "inputSchema": SCHEMA}
    async with executor(settings) as one:
        assert shown(await one.lists(repaired(sent, fit))) == ["a"]
        entry = await one.bucket.get(pin_key("tools", "docs", "a"))
        assert entry is not None
        assert entry.value is not None
        pin = Pin.decode(entry.value)
        assert (pin.definition, pin.digest) == (sent, digest_of(sent))
        # A later version that repairs otherwise finds the same pin; another definition does not.
        assert shown(await one.lists(repaired(sent, {**fit, "description": ""}))) == ["a"]
        found = await one.lists(repaired({**sent, "title": None}, fit))
        assert held(found) == {"a": "changed since it was approved"}


async def test_a_changed_prompt_is_held_like_a_tool(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(prompts=(offered("p"),))
        found = await one.lists(prompts=(offered("p", "else"),))
        assert (found.prompts, held(found)) == ((), {"p": "changed since it was approved"})


async def test_a_tool_that_went_keeps_its_pin(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
        assert shown(await one.lists(offered("a"))) == ["a"]
        found = await one.lists(offered("a"), offered("b", "else"))
        assert held(found) == {"b": "changed since it was approved"}
        assert shown(await one.lists(offered("a"), offered("b"))) == ["a", "b"]


async def test_each_holds_back_everything_and_trust_nothing(settings: Settings) -> None:
    async with executor(settings, "each") as one:
        assert held(await one.lists(offered("a"))) == {"a": "not approved yet"}
    async with executor(settings, "trust") as one:
        found = await one.lists(offered("a", "x"), offered("b"))
        assert (shown(found), held(found)) == (["a", "b"], {})
    async with executor(settings, "first") as one:
        assert held(await one.lists(offered("a"))) == {"a": "not approved yet"}, "it was met before"


async def test_an_executor_started_again_compares_with_the_pins(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
    async with executor(settings) as two:
        found = await two.lists(offered("a"), offered("b", "else"), offered("c"))
        assert (shown(found), sorted(held(found))) == (["a"], ["b", "c"])


async def test_of_two_executors_one_saw_the_server_first_and_the_other_compares(
    settings: Settings,
) -> None:
    async with executor(settings) as one, executor(settings) as two:
        first = one.lists(offered("a", "one"), offered("b"), offered("only one"))
        second = two.lists(offered("a", "two"), offered("b"), offered("only two"))
        await asyncio.gather(first, second)
        pinned = sorted(one.said(DefinitionPinned) + two.said(DefinitionPinned))
        assert pinned in (["a", "b", "only one"], ["a", "b", "only two"]), "one listing, whole"
        lists = [listing(offered("a", word), offered("b"), offered(f"only {word}"))
                 for word in ("one", "two")]  # fmt: skip

        def weighed(each: Executor) -> list[list[str]]:
            known = (found.model_copy(update={"known": True}) for found in lists)
            return sorted(shown(each.pins.apply_pins(found, "first")) for found in known)

        for each in (one, two):  # the other's pins are heard of later than its listing ends
            await until(lambda each=each: pinned in weighed(each), "what was pinned")  # type: ignore[misc]
            assert weighed(each) == [pinned, ["b"]]


async def test_pins_a_crash_left_unwritten_are_made_from_the_first_listing_alone(
    settings: Settings,
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
        await one.bucket.delete(pin_key("tools", "docs", "a"))
        await one.bucket.delete(pin_key("tools", "docs", "b"))
    async with executor(settings) as two:
        found = await two.lists(offered("a"), offered("b", "else"))
        assert (shown(found), held(found)) == (["a"], {"b": "not approved yet"})


async def test_lost_pins_trust_nothing_anew(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
        for key in (first_key("docs"), *(pin_key("tools", "docs", name) for name in "ab")):
            await one.bucket.delete(key)

        async def all_held() -> bool:
            return sorted(held(await one.entry.now())) == ["a", "b"]

        await until_async(all_held, "at once, without a listing")
    async with executor(settings) as two:
        found = await two.lists(offered("a"), offered("b"))
        assert (shown(found), sorted(held(found))) == ([], ["a", "b"])
        assert two.said(DefinitionPinned) == []


async def test_a_pin_that_cannot_be_read_approves_nothing(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        await one.bucket.put(pin_key("tools", "docs", "a"), b"{nonsense")

        async def is_held() -> bool:
            return "a" in held(await one.entry.now())

        await until_async(is_held)


async def test_an_approval_shows_what_was_approved_and_nothing_else(
    settings: Settings, board: Pinboard
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"), offered("b"))
        await one.lists(offered("a", "new"), offered("b"))
        case = await case_of(board, "a")
        assert case.pin.definition["description"] == ""
        await board.approve(case)

        async def is_shown() -> bool:
            return shown(await one.entry.now()) == ["a", "b"]

        await until_async(is_shown)
        assert one.entry.listed is not None
        await until(lambda: not one.entry.listed.quarantined, "the executor lets it be called")  # type: ignore[union-attr]
        assert held(await one.lists(offered("a"), offered("b"))) == {
            "a": "changed since it was approved"
        }, "the old one is not approved any more"


async def test_what_changed_since_it_was_shown_is_not_approved(
    settings: Settings, board: Pinboard
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        await one.lists(offered("a", "harmless"))
        case = await case_of(board, "a")
        found = await one.lists(offered("a", "harmful"))
        with pytest.raises(CommandError, match="changed since it was shown"):
            await board.approve(case)
        assert await one.entry.now() == found


async def test_an_approval_takes_no_name_from_what_is_shown(
    settings: Settings, board: Pinboard
) -> None:
    async with executor(settings) as one:
        await one.lists(offered("greet"))
        found = await one.lists(offered("Greet"), offered("greet"), offered("leave"))
        with pytest.raises(CommandError, match=r"docs__greet' would no longer be listed: .* like"):
            await board.approve(await case_of(board, "leave"), await case_of(board, "Greet"))
        assert await one.entry.now() == found, "not one of them"
        await board.approve(await case_of(board, "leave"))


async def test_of_two_operators_the_second_is_told(settings: Settings, board: Pinboard) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        await one.lists(offered("a", "new"))
        case = await case_of(board, "a")
        await board.reject(case)
        with pytest.raises(CommandError, match="Another operator decided"):
            await board.approve(case)


async def test_a_rejected_definition_is_taken_away_in_every_mode(
    settings: Settings, board: Pinboard
) -> None:
    for mode in ("trust", "first"):
        async with executor(settings, mode) as one:
            await one.lists(offered("a", mode), offered("b"))
            await board.reject(await case_of(board, "a"))

            async def gone(one: Executor = one) -> bool:
                return held(await one.entry.now()).get("a") == "rejected"

            await until_async(gone, mode)
            assert held(await one.lists(offered("a", mode), offered("b")))["a"] == "rejected"


async def test_an_approval_of_what_was_rejected_counts(settings: Settings, board: Pinboard) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        await board.reject(await case_of(board, "a"))
        await board.approve(await case_of(board, "a"))

        async def back() -> bool:
            return shown(await one.entry.now()) == ["a"]

        await until_async(back)


async def test_a_pin_remembers_what_was_approved_by_whom_and_when(
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


async def test_a_catalogue_of_before_there_were_pins_is_pinned_when_its_server_connects(
    settings: Settings,
) -> None:
    async with executor(settings) as one:
        old = listing(CatalogEntry(name="a", definition=offered("a").definition))
        await one.entry._catalogue.put("docs", old.encode())
        await one.entry.publish(old.model_copy(update={"state": ServerState.STALE}))
        assert shown(await one.entry.now()) == ["a"], "not met yet"
        assert shown(await one.lists(offered("a"))) == ["a"]
        assert held(await one.lists(offered("a", "else"))) == {"a": "changed since it was approved"}


async def test_a_server_that_changes_for_ever_does_not_fill_the_stream(settings: Settings) -> None:
    async with executor(settings) as one:
        await one.lists(offered("a"))
        for turn in range(3):
            found = await one.lists(*(offered(f"t{n}", str(turn)) for n in range(700)))
            assert len(found.quarantined) == 700
        assert 1000 <= len(one.said(DefinitionChanged)) < 2100


async def test_what_was_listed_before_there_were_pins_stays_shown_where_it_is_trusted(
    settings: Settings,
) -> None:
    async with executor(settings, "trust") as one:
        await one.entry.publish(listing(CatalogEntry(name="a", definition={"name": "a"})))
        assert shown(await one.entry.now()) == ["a"]


async def test_five_hundred_tools_are_pinned_with_one_entry_each(settings: Settings) -> None:
    async with executor(settings) as one:
        tools = [offered(f"tool.{number}", "d" * 1000) for number in range(500)]
        assert len(shown(await one.lists(*tools))) == 500
        assert len(one.said(DefinitionPinned)) == 500
    async with AsyncExitStack() as stack:
        again = await stack.enter_async_context(executor(settings))
        assert held(await again.lists(*tools)) == {}


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a_b"), ("a.b", "a=2Eb"), ("a", "A"), ("..", ".")]
)
def test_different_names_have_different_entries(one: str, other: str) -> None:
    assert pin_key("tools", "docs", one) != pin_key("tools", "docs", other)


def test_an_entrys_name_is_one_a_bucket_takes() -> None:
    assert pin_key("tools", "docs", ".a..b.") == "tools.docs.=2Ea=2E=2Eb=2E"
