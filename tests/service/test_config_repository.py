"""The configuration repository on a real bus: applied whole, secrets created once, events."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import pytest

from harness.waits import until, until_async
from toolbus_cli import config_client as desks
from toolbus_cli.launcher import config_source
from toolbus_cli.launcher.config_source import Source
from toolbus_cli.state_dir import State
from toolbus_common.access.config_snapshot import ConfigProjection, ConfigView
from toolbus_common.config import Configuration, Key
from toolbus_common.config_store.diff import changes
from toolbus_common.config_store.drafts import hashed
from toolbus_common.config_store.loading.loader import Loaded
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.errors import InvalidError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, CONFIGURATION, EVENTS, KEY_PREFIX
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings


@pytest.fixture
async def repository(operator: Bus, settings: Settings) -> AsyncIterator[ConfigRepository]:
    async with desks.opened(operator, State(settings.state_dir)) as opened:
        yield opened


def declared(**sections: Any) -> Configuration:
    return Configuration.model_validate(sections)


BOT = declared(keys={"bot": {"tools": ["*"]}})


async def test_a_key_without_a_secret_gets_one_that_is_returned_once(
    repository: ConfigRepository,
) -> None:
    first = await repository.apply(BOT, "file")
    secret = first.secrets["bot"]
    stored = (await repository.declared()).configuration
    assert stored.keys["bot"].secret_hash == hashed(secret)
    assert secret not in stored.model_dump_json()
    again = await repository.apply(BOT, "file")
    assert (again.secrets, again.changes, again.revision) == ({}, (), first.revision)


async def test_a_changed_key_retains_its_secret(repository: ConfigRepository) -> None:
    await repository.apply(BOT, "file")
    before = (await repository.declared()).configuration.keys["bot"].secret_hash
    applied = await repository.apply(declared(keys={"bot": {"tools": ["a__*"]}}), "file")
    now = (await repository.declared()).configuration.keys["bot"]
    assert (now.secret_hash, now.tools) == (before, ("a__*",))
    assert [str(change) for change in applied.changes] == ["~ keys.bot: tools ['*'] → ['a__*']"]


async def test_a_plan_changes_nothing(repository: ConfigRepository) -> None:
    planned, revision = await repository.plan(BOT)
    assert ([str(change) for change in planned], revision) == (["+ keys.bot"], 0)
    assert (await repository.declared()).revision == 0


async def test_concurrent_applies_leave_exactly_one_configuration(
    repository: ConfigRepository,
) -> None:
    many = [declared(keys={f"k{n}": {"tools": [f"s{n}__*"]}}) for n in range(4)]
    await asyncio.gather(*(repository.apply(each, "file") for each in many))
    (name,) = (await repository.declared()).configuration.keys
    assert name in {"k0", "k1", "k2", "k3"}


async def test_a_revoked_configured_key_stays_revoked_when_its_file_is_applied_again(
    repository: ConfigRepository, operator: Bus
) -> None:
    secret = (await repository.apply(BOT, "file")).secrets["bot"]
    key = (await repository.declared()).configuration.keys["bot"]
    assert await repository.put_own(KEY_PREFIX, "bot", key.model_copy(update={"revoked": True}), 0)
    await repository.apply(declared(keys={"bot": {"tools": ["a__*"]}}), "file")
    directory = ConfigView()
    bucket = await operator.bucket("tb_config")
    for each in await bucket.present():
        directory.projection.apply_change(each)
    directory.projection.apply_change(None)
    assert directory.now.keys["bot"].revoked
    assert secret


async def test_a_replaced_secret_is_stored(repository: ConfigRepository) -> None:
    await repository.apply(BOT, "file")
    await repository.replace_secret("bot", hashed("another"))
    assert (await repository.declared()).configuration.keys["bot"].secret_hash == hashed("another")
    assert (await repository.declared()).minted == {"bot"}


async def test_concurrent_applies_each_record_their_created_secrets(
    repository: ConfigRepository, operator: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = repository._note_origin

    async def late(*given: Any) -> None:
        async with desks.opened(operator, State(settings.state_dir / "other")) as other:
            both = {"bot": {"tools": ["*"]}, "second": {"tools": ["*"]}}
            await other.apply(declared(keys=both), "file")
        await note(*given)

    monkeypatch.setattr(repository, "_note_origin", late)
    await repository.apply(BOT, "file")
    assert (await repository.declared()).minted == {"bot", "second"}


async def test_a_secret_of_the_file_is_not_recorded_as_created(
    repository: ConfigRepository,
) -> None:
    await repository.apply(BOT, "file")
    fields = {"tools": ["*"], "secret_hash": hashed("from the file")}
    await repository.apply(declared(keys={"bot": fields}), "file")
    assert (await repository.declared()).minted == frozenset()


async def test_own_keys_are_the_keys_created_one_by_one(repository: ConfigRepository) -> None:
    key = Key(tools=("*",), secret_hash=hashed("x"))
    assert await repository.put_own(KEY_PREFIX, "made", key, 0)
    assert await repository.put_own(KEY_PREFIX, "gone", key, 0)
    await repository.drop_own(KEY_PREFIX, "gone")
    assert await repository.own_keys() == {"made": key}
    assert await repository.own_key("made") == key
    assert [await repository.own_key(name) for name in ("gone", "never", "no name")] == [None] * 3


async def test_thousands_of_keys_are_one_entry_and_each_is_an_event(
    repository: ConfigRepository, operator: Bus
) -> None:
    """Defaults are not stored: ten thousand keys fit into one entry."""
    key_fields = {"team": "ops", "tools": ["docs__*"], "budget": {"usd": 20, "per": "day"}}
    many = declared(teams={"ops": {}}, keys={f"k{number}": key_fields for number in range(2000)})
    applied = await repository.apply(many, "file")
    assert len(applied.secrets) == 2000
    bare = {
        name: key.model_copy(update={"secret_hash": ""})
        for name, key in (await repository.declared()).configuration.keys.items()
    }
    assert bare == many.keys
    entry = await (await operator.bucket(CONFIG)).get(CONFIGURATION)
    assert entry is not None
    assert entry.value is not None
    assert 5 * len(entry.value) < operator.max_bytes
    stream = operator.client.jetstream()

    async def all_published() -> bool:
        newest = await operator.newest(EVENTS)
        stored = [await stream.get_msg(EVENTS, number) for number in range(1, newest + 1)]
        return b"".join(each.data or b"" for each in stored).count(b'"key.created"') == 2000

    assert await until_async(all_published)


async def test_changes_are_computed_outside_the_event_loop(
    repository: ConfigRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy has a repository too, on the event loop of its calls; thousands of keys take long."""
    here: list[bool] = []

    def compute(*given: Any) -> Any:
        here.append(current_thread() is main_thread())
        return changes(*given)

    for module in ("drafts", "repository"):
        monkeypatch.setattr(f"toolbus_common.config_store.{module}.changes", compute)
    await repository.plan(BOT)
    await repository.apply(BOT, "file")
    assert here == [False, False]


async def test_a_configuration_larger_than_an_entry_is_rejected_whole(
    repository: ConfigRepository, operator: Bus
) -> None:
    await repository.apply(BOT, "file")
    patterns = [f"{number:0256}" for number in range(100)]
    count = operator.max_bytes // (256 * len(patterns)) + 1
    large = declared(keys={f"k{number}": {"tools": patterns} for number in range(count)})
    with pytest.raises(InvalidError, match="create the others with 'toolbus keys create'"):
        await repository.apply(large, "file")
    assert list((await repository.declared()).configuration.keys) == ["bot"]
    assert operator.connected


async def test_a_change_is_an_event_with_its_operator(
    repository: ConfigRepository, operator: Bus, settings: Settings
) -> None:
    stream = operator.client.jetstream()
    await repository.apply(BOT, "file")
    await repository.apply(Configuration(), "file")

    async def published_events() -> bytes:
        count = int((await stream.stream_info("EVENTS")).state.messages)
        stored = [await stream.get_msg("EVENTS", number) for number in range(1, count + 1)]
        published = b"\n".join(message.data or b"" for message in stored)
        return published if published.count(b'"event"') >= 4 else b""

    published = await until_async(published_events)
    assert published.count(b'"config.applied"') == 2
    assert b'"key.created"' in published
    assert b'"key.revoked"' in published
    people = await desks.people_of(operator, State(settings.state_dir))
    await people.read_all()
    assert desks.me().encode() not in published
    assert f'"by":"operator:{desks.me()}"' in people.reveal(published.decode())


async def test_the_demo_does_not_replace_a_configuration_applied_by_hand(
    repository: ConfigRepository, settings: Settings
) -> None:
    await repository.apply(BOT, "apply")
    demo = Source(settings.state_dir / "demo.yaml", config_source.DEMO)
    applied = await config_source.apply_first(repository, demo, Loaded(declared(keys={"demo": {}})))
    assert applied.changes == ()
    assert not demo.is_demo
    assert list((await repository.declared()).configuration.keys) == ["bot"]


async def test_a_changed_file_is_applied_and_an_invalid_one_changes_nothing(
    repository: ConfigRepository, settings: Settings
) -> None:
    notes: list[str] = []
    path = settings.state_dir / "toolbus.yaml"
    path.write_text("keys: {bot: {tools: ['*']}}")
    file = Source(path, config_source.FILE)
    await config_source.apply_first(repository, file, file.load())
    assert not file.changed()
    path.write_text("keys: {bot: {tols: []}, other: {team: none}}")
    await until(file.changed)
    assert (
        await config_source.reload(repository, file, lambda note, _level: notes.append(note))
        is None
    )
    assert not file.changed()
    assert "did you mean 'tools'?" in notes[0]
    assert "nothing was applied" in notes[-1]
    path.write_text("keys: {bot: {tools: ['a__b']}}")
    await until(file.changed)
    assert (
        await config_source.reload(repository, file, lambda note, _level: notes.append(note))
        is not None
    )
    assert (await repository.declared()).configuration.keys["bot"].tools == ("a__b",)
    path.unlink()
    assert not file.changed()


def test_a_file_being_written_is_ignored_until_it_is_complete(tmp_path: Path) -> None:
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


async def test_a_replica_takes_no_work_with_a_configuration_of_a_newer_version(
    repository: ConfigRepository, operator: Bus, settings: Settings
) -> None:
    await repository.apply(BOT, "file")
    bucket = await operator.bucket(CONFIG)
    older, newer = Service("ingress", settings), Service("policy", settings)
    for service in (older, newer):
        service.share_projection(CONFIG, ConfigProjection)
    async with older.running():
        revision = await bucket.put(CONFIGURATION, b'{"later": {}}')
        await until(lambda: older.status().revisions[CONFIG] >= revision, "the older one sees it")
        assert older.status().ready, "it continues with the last configuration that it could read"
        assert "(later)" in older.status().details["configuration"]
        async with newer.running():
            status = newer.status()
            assert not status.ready
            assert "cannot read the entry 'configuration'" in status.reason
            assert "Run that version" in status.reason
    with pytest.raises(InvalidError, match="a newer version wrote it"):
        await repository.declared()
    await bucket.put(f"{KEY_PREFIX}bot", b'{"later": 1}')
    with pytest.raises(InvalidError, match=r"'key.bot' of the stored configuration \(later\)"):
        await repository.own_keys()
