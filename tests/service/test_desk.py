"""The operator's desk on a real bus: applied whole, secrets made once, changes recorded."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import pytest

from harness.waiting import until, until_told
from toolbus_cli import config_client as desks
from toolbus_cli.launcher import config_source
from toolbus_cli.launcher.config_source import Source
from toolbus_cli.state_dir import State
from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.config import Configuration, Key
from toolbus_common.config_store.diff import changes
from toolbus_common.config_store.loading.loader import Loaded
from toolbus_common.config_store.repository import ConfigRepository, hashed
from toolbus_common.errors import InvalidError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, DECLARATION, EVENTS, KEY_PREFIX
from toolbus_common.settings import Settings


@pytest.fixture
async def desk(operator: Bus, settings: Settings) -> AsyncIterator[ConfigRepository]:
    async with desks.opened(operator, State(settings.state_dir)) as opened:
        yield opened


def declared(**sections: Any) -> Configuration:
    return Configuration.model_validate(sections)


BOT = declared(keys={"bot": {"tools": ["*"]}})


async def test_a_key_without_a_secret_is_given_one_that_is_told_once(
    desk: ConfigRepository,
) -> None:
    first = await desk.apply(BOT, "file")
    secret = first.secrets["bot"]
    stored = (await desk.declared()).declaration
    assert stored.keys["bot"].secret_hash == hashed(secret)
    assert secret not in stored.model_dump_json()
    again = await desk.apply(BOT, "file")
    assert (again.secrets, again.changes, again.revision) == ({}, (), first.revision)


async def test_a_changed_key_keeps_the_secret_it_had(desk: ConfigRepository) -> None:
    await desk.apply(BOT, "file")
    before = (await desk.declared()).declaration.keys["bot"].secret_hash
    applied = await desk.apply(declared(keys={"bot": {"tools": ["a__*"]}}), "file")
    now = (await desk.declared()).declaration.keys["bot"]
    assert (now.secret_hash, now.tools) == (before, ("a__*",))
    assert [str(change) for change in applied.changes] == ["~ keys.bot: tools ['*'] → ['a__*']"]


async def test_a_plan_changes_nothing(desk: ConfigRepository) -> None:
    planned, revision = await desk.plan(BOT)
    assert ([str(change) for change in planned], revision) == (["+ keys.bot"], 0)
    assert (await desk.declared()).revision == 0


async def test_of_two_at_once_neither_is_half_applied(desk: ConfigRepository) -> None:
    many = [declared(keys={f"k{n}": {"tools": [f"s{n}__*"]}}) for n in range(4)]
    await asyncio.gather(*(desk.apply(each, "file") for each in many))
    (name,) = (await desk.declared()).declaration.keys
    assert name in {"k0", "k1", "k2", "k3"}


async def test_a_revoked_declared_key_stays_revoked_when_its_file_is_applied_again(
    desk: ConfigRepository, operator: Bus
) -> None:
    secret = (await desk.apply(BOT, "file")).secrets["bot"]
    key = (await desk.declared()).declaration.keys["bot"]
    assert await desk.put_own(KEY_PREFIX, "bot", key.model_copy(update={"revoked": True}), 0)
    await desk.apply(declared(keys={"bot": {"tools": ["a__*"]}}), "file")
    directory = ConfigProjection()
    bucket = await operator.bucket("tb_config")
    for each in await bucket.present():
        directory.hear(each)
    directory.hear(None)
    assert directory.now.keys["bot"].revoked
    assert secret


async def test_another_secret_replaces_the_one_before(desk: ConfigRepository) -> None:
    await desk.apply(BOT, "file")
    await desk.replace_secret("bot", hashed("another"))
    assert (await desk.declared()).declaration.keys["bot"].secret_hash == hashed("another")
    assert (await desk.declared()).minted == {"bot"}


async def test_of_two_who_apply_at_once_each_is_known_to_have_made_its_secrets(
    desk: ConfigRepository, operator: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = desk._note_origin

    async def late(*given: Any) -> None:
        async with desks.opened(operator, State(settings.state_dir / "other")) as other:
            both = {"bot": {"tools": ["*"]}, "second": {"tools": ["*"]}}
            await other.apply(declared(keys=both), "file")
        await note(*given)

    monkeypatch.setattr(desk, "_note_origin", late)
    await desk.apply(BOT, "file")
    assert (await desk.declared()).minted == {"bot", "second"}


async def test_a_secret_of_the_file_is_not_counted_as_made_here(desk: ConfigRepository) -> None:
    await desk.apply(BOT, "file")
    fields = {"tools": ["*"], "secret_hash": hashed("from the file")}
    await desk.apply(declared(keys={"bot": fields}), "file")
    assert (await desk.declared()).minted == frozenset()


async def test_own_keys_are_those_made_one_by_one(desk: ConfigRepository) -> None:
    key = Key(tools=("*",), secret_hash=hashed("x"))
    assert await desk.put_own(KEY_PREFIX, "made", key, 0)
    assert await desk.put_own(KEY_PREFIX, "gone", key, 0)
    await desk.drop_own_key("gone")
    assert await desk.own_keys() == {"made": key}
    assert await desk.own_key("made") == key
    assert [await desk.own_key(name) for name in ("gone", "never", "no name")] == [None] * 3


async def test_thousands_of_keys_are_applied_as_one_entry_each_an_event(
    desk: ConfigRepository, operator: Bus
) -> None:
    """What was not said of a key is not stored of it: ten thousand fit with room to spare."""
    made = {"team": "ops", "tools": ["docs__*"], "budget": {"usd": 20, "per": "day"}}
    many = declared(teams={"ops": {}}, keys={f"k{number}": made for number in range(2000)})
    applied = await desk.apply(many, "file")
    assert len(applied.secrets) == 2000
    bare = {
        name: key.model_copy(update={"secret_hash": ""})
        for name, key in (await desk.declared()).declaration.keys.items()
    }
    assert bare == many.keys
    entry = await (await operator.bucket(CONFIG)).get(DECLARATION)
    assert entry is not None
    assert entry.value is not None
    assert 5 * len(entry.value) < operator.most_bytes
    stream = operator.client.jetstream()

    async def all_told() -> bool:
        newest = await operator.newest(EVENTS)
        stored = [await stream.get_msg(EVENTS, number) for number in range(1, newest + 1)]
        return b"".join(each.data or b"" for each in stored).count(b'"key.created"') == 2000

    assert await until_told(all_told)


async def test_what_differs_is_worked_out_beside_the_loop(
    desk: ConfigRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy has a desk too, on the loop that calls share; thousands of keys take long."""
    here: list[bool] = []

    def seen(*given: Any) -> Any:
        here.append(current_thread() is main_thread())
        return changes(*given)

    monkeypatch.setattr("toolbus_common.config_store.repository.changes", seen)
    await desk.plan(BOT)
    await desk.apply(BOT, "file")
    assert here == [False, False]


async def test_a_declaration_larger_than_an_entry_is_refused_whole(
    desk: ConfigRepository, operator: Bus
) -> None:
    await desk.apply(BOT, "file")
    patterns = [f"{number:0256}" for number in range(100)]
    count = operator.most_bytes // (256 * len(patterns)) + 1
    large = declared(keys={f"k{number}": {"tools": patterns} for number in range(count)})
    with pytest.raises(InvalidError, match="create the others with 'toolbus keys create'"):
        await desk.apply(large, "file")
    assert list((await desk.declared()).declaration.keys) == ["bot"]
    assert operator.connected


async def test_what_was_changed_is_an_event_with_who_changed_it(
    desk: ConfigRepository, operator: Bus, settings: Settings
) -> None:
    stream = operator.client.jetstream()
    await desk.apply(BOT, "file")
    await desk.apply(Configuration(), "file")

    async def said_by_now() -> bytes:
        count = int((await stream.stream_info("EVENTS")).state.messages)
        stored = [await stream.get_msg("EVENTS", number) for number in range(1, count + 1)]
        published = b"\n".join(message.data or b"" for message in stored)
        return published if published.count(b'"event"') >= 4 else b""

    published = await until_told(said_by_now)
    assert published.count(b'"config.applied"') == 2
    assert b'"key.created"' in published
    assert b'"key.revoked"' in published
    people = await desks.people_of(operator, State(settings.state_dir))
    await people.read_all()
    assert desks.me().encode() not in published
    assert f'"by":"operator:{desks.me()}"' in people.reveal(published.decode())


async def test_the_demo_steps_back_for_a_configuration_applied_by_hand(
    desk: ConfigRepository, settings: Settings
) -> None:
    await desk.apply(BOT, "apply")
    demo = Source(settings.state_dir / "demo.yaml", config_source.DEMO)
    applied = await config_source.apply_first(desk, demo, Loaded(declared(keys={"demo": {}})))
    assert applied.changes == ()
    assert not demo.is_demo
    assert list((await desk.declared()).declaration.keys) == ["bot"]


async def test_a_changed_file_is_applied_and_a_faulty_one_changes_nothing(
    desk: ConfigRepository, settings: Settings
) -> None:
    notes: list[str] = []
    path = settings.state_dir / "toolbus.yaml"
    path.write_text("keys: {bot: {tools: ['*']}}")
    file = Source(path, config_source.FILE)
    await config_source.apply_first(desk, file, file.load())
    assert not file.changed()
    path.write_text("keys: {bot: {tols: []}, other: {team: none}}")
    await until(file.changed)
    assert await config_source.reload(desk, file, lambda note, _level: notes.append(note)) is None
    assert not file.changed()
    assert "did you mean 'tools'?" in notes[0]
    assert "nothing was applied" in notes[-1]
    path.write_text("keys: {bot: {tools: ['a__b']}}")
    await until(file.changed)
    assert (
        await config_source.reload(desk, file, lambda note, _level: notes.append(note)) is not None
    )
    assert (await desk.declared()).declaration.keys["bot"].tools == ("a__b",)
    path.unlink()
    assert not file.changed()


def test_a_file_that_is_being_written_is_left_alone_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "toolbus.yaml"
    path.write_text("keys: {bot: {tools: ['*']}}")
    file = Source(path, config_source.FILE)
    file.load()
    for text in ("", "keys: {bot:", "keys: {bot: {tools: ['a__b']}}"):
        path.write_text(text)
        assert not file.changed()
    assert file.changed()
    file.load()
    assert not file.changed()
