"""The key that encrypts the keys of persons is replaced on a real bus, with replicas that run."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.waits import until
from toolbus_cli.app import built
from toolbus_cli.backup.live_parts import only_one
from toolbus_cli.errors import CommandError
from toolbus_cli.rotation import key_files, people, replicas
from toolbus_common.crypto.key_file import keys_beside, load_key
from toolbus_common.errors import BusDownError
from toolbus_common.guards.placeholders import Placeholders
from toolbus_common.guards.service_inspector import placeholders_of
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.permissions import readers_of
from toolbus_common.nats.topology import PEOPLE
from toolbus_common.privacy.crypto_shredding import shred
from toolbus_common.privacy.key_store import ERASED, OTHER_KEY, PersonKeys
from toolbus_common.privacy.person_key import CHECK
from toolbus_common.privacy.service_keys import use_person_keys
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings


class KilledError(BaseException):
    """The command was killed."""


class Installation:
    """A replica of every service with person keys, and a second audit on another machine."""

    def __init__(self, settings: Settings, operator: Bus, elsewhere: Path) -> None:
        self.path = settings.people_key_file
        self.elsewhere = elsewhere / "people.key"
        self.replicas: dict[str, PersonKeys] = {}
        self.placeholders: Placeholders
        self.operator = operator
        self._settings = settings

    async def start(self, stack: AsyncExitStack) -> None:
        """Start the replicas."""
        load_key(self.path)
        self.copy()
        for name in (*readers_of(PEOPLE), "audit elsewhere"):
            path = self.elsewhere if "elsewhere" in name else self.path
            settings = self._settings.model_copy(update={"people_key": path})
            service = Service(name.partition(" ")[0], settings)
            self.replicas[name] = use_person_keys(service)
            if name == "executor":
                self.placeholders = placeholders_of(service)
            await stack.enter_async_context(service.running())

    def copy(self) -> None:
        """Make the key files of the other machine the same."""
        for each in keys_beside(self.elsewhere):
            each.unlink()
        self.elsewhere.parent.mkdir(exist_ok=True)
        for each in (self.path, *keys_beside(self.path)):
            shutil.copy(each, self.elsewhere.parent)

    async def sealed(self, name: str, by: str = "policy") -> str:
        """Return a text that a replica encrypts for a person."""
        await self.replicas[by].learn([name])
        return self.replicas[by].seal(name, f"a text of {name}")

    async def all_show(self, token: str, text: str) -> None:
        """Wait until all replicas show this text for a token."""
        await until(
            lambda: all(each.reveal(token) == text for each in self.replicas.values()),
            f"all replicas show '{text}'",
        )

    async def shown_later(self, token: str, path: Path | None = None) -> str:
        """Return what a replica that starts now shows."""
        later = PersonKeys(path or self.path)
        later.open(await self.operator.bucket(PEOPLE))
        await later.read_all()
        return later.reveal(token)

    async def switch(self) -> str:
        return await people.switched(self.operator, self.path)

    async def finish(self, *, now: bool = False) -> str:
        return await people.finished(self.operator, self.path, now=now)

    async def erase(self, name: str) -> None:
        """Erase a person as an operator does."""
        operator = PersonKeys(self.path)
        operator.open(await self.operator.bucket(PEOPLE))
        found = await operator.find(name)
        assert found is not None
        await shred(self.operator, operator.entry_of(name), found[1])


@pytest.fixture
async def installation(
    settings: Settings, operator: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Installation]:
    monkeypatch.setattr(people, "LEARNED_SECONDS", 0.0)
    monkeypatch.setattr(key_files, "STORED_SECONDS", 0.0)
    monkeypatch.setattr(replicas, "SECONDS", 0.3)
    found = Installation(settings, operator, tmp_path / "elsewhere")
    async with AsyncExitStack() as stack:
        await found.start(stack)
        yield found


async def test_content_stays_readable_at_all_replicas_and_the_earlier_key_ends(
    installation: Installation, tmp_path: Path
) -> None:
    own = installation
    ann = await own.sealed("user:ann")
    old = shutil.copy(own.path, tmp_path / "old.key")
    key_files.prepared(own.path)
    with pytest.raises(CommandError, match=r"do not accept the new key yet: audit \("):
        await own.switch()
    assert key_files.next_of(own.path).exists()
    own.copy()
    await own.switch()
    bob = await own.sealed("user:bob", by="codemode")  # with the new key, at every replica
    zoe = await own.sealed("user:zoe", by="oauth")
    for name, token in (("ann", ann), ("bob", bob), ("zoe", zoe)):
        await own.all_show(token, f"a text of user:{name}")
    with pytest.raises(CommandError, match=r"do not use the new key yet: audit \("):
        await own.finish()
    own.copy()
    await own.erase("user:bob")
    assert "encrypted again: 1." in await own.finish(), "only ann's was of the earlier key"
    assert not keys_beside(own.path)
    await own.all_show(bob, ERASED)
    for name, token in (("ann", ann), ("zoe", zoe)):
        await own.all_show(token, f"a text of user:{name}")
        assert await own.shown_later(token) == f"a text of user:{name}"
        assert await own.shown_later(token, Path(old)) == ERASED
    assert await own.shown_later(bob) == ERASED


async def test_a_replica_with_the_earlier_key_only_creates_no_keys(
    installation: Installation, tmp_path: Path
) -> None:
    own = installation
    ann = await own.sealed("user:ann")
    old = shutil.copytree(own.path.parent, tmp_path / "old") / own.path.name
    key_files.prepared(own.path)
    own.copy()
    await own.switch()
    late = PersonKeys(old)
    late.open(await own.operator.bucket(PEOPLE))
    with pytest.raises(BusDownError, match="give every service the same file"):
        await late.learn(["user:bob"])
    assert late.current_fault() == OTHER_KEY
    for each in (own.path, *keys_beside(own.path)):
        shutil.copy(each, old.parent)
    assert late.current_fault() == ""
    await late.learn(["user:bob"])
    assert await own.shown_later(late.seal("user:bob", "hello")) == "hello"
    assert await own.shown_later(ann) == "a text of user:ann"


async def test_each_stage_can_be_repeated_wherever_it_was_killed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill the command after each single change, and compare all replicas and one that starts."""
    own, kills = installation, 0
    tokens = {name: await own.sealed(name) for name in ("user:ann", "user:bob", "key:bot")}
    key_files.prepared(own.path)
    own.copy()
    key = key_files.next_of(own.path).read_bytes()

    def killed_after(function: Callable[..., Any]) -> Callable[..., Any]:
        def changed(path: Path, *given: Any) -> None:
            function(path, *given)
            if path.name.startswith("people."):
                raise KilledError

        return changed

    swap = Bucket.swap

    async def swapped(bucket: Bucket, key: str, value: bytes, last: int) -> int | None:
        await swap(bucket, key, value, last)
        raise KilledError

    for stage in (own.switch, own.finish):
        while True:
            with monkeypatch.context() as patched:
                patched.setattr(Bucket, "swap", swapped)
                patched.setattr(os, "link", killed_after(os.link))
                patched.setattr(Path, "replace", killed_after(Path.replace))
                patched.setattr(Path, "unlink", killed_after(Path.unlink))
                try:
                    await stage()
                    break
                except KilledError:
                    kills += 1
                except CommandError:
                    assert stage == own.switch, "the files were switched before it was killed"
                    break
            for name, token in tokens.items():
                await own.all_show(token, f"a text of {name}")
                assert await own.shown_later(token) == f"a text of {name}"
        own.copy()
    assert kills >= 3 + 4, "the entry, the link, the file; three persons, the earlier file"
    assert own.path.read_bytes() == key
    assert not keys_beside(own.path)


async def test_the_earlier_key_is_kept_while_redacted_values_need_it(
    installation: Installation,
) -> None:
    own = installation
    placeholder = own.placeholders.text_of("p", "run", "mail", "ann@example.com")
    await own.placeholders.store("p", "run", "guard", {placeholder: "ann@example.com"})
    body = f'{{"to": "{placeholder}"}}'.encode()

    async def restored() -> bytes:
        return await own.placeholders.restore("p", "run", body, ["guard"])

    key_files.prepared(own.path)
    own.copy()
    await own.switch()
    own.copy()
    with pytest.raises(CommandError, match="guards can still restore values"):
        await own.finish()
    assert await restored() == b'{"to":"ann@example.com"}'
    later = own.placeholders.text_of("p", "run", "mail", "ann@example.com")
    assert later != placeholder, "of the new key"
    await own.placeholders.store("p", "run", "guard", {later: "ann@example.com"})
    await own.finish(now=True)
    assert await restored() == body


async def test_persons_of_a_key_that_is_missing_are_not_lost(
    installation: Installation,
) -> None:
    own = installation
    ann = await own.sealed("user:ann")
    key_files.prepared(own.path)
    own.copy()
    await own.switch()
    own.copy()
    (earlier,) = keys_beside(own.path)
    away = earlier.rename(earlier.with_name("away"))
    with pytest.raises(CommandError, match="with a master key that is not in this directory"):
        await own.finish()
    away.rename(earlier)
    await own.finish()
    assert await own.shown_later(ann) == "a text of user:ann"


async def test_the_names_of_entries_stay_the_same_through_two_rotations(
    installation: Installation,
) -> None:
    own = installation
    await own.sealed("user:ann")
    bucket = await own.operator.bucket(PEOPLE)
    before = {each.key for each in await bucket.present()}
    for _ in range(2):
        key_files.prepared(own.path)
        own.copy()
        await own.switch()
        own.copy()
        assert "Remove the earlier files at audit (" in await own.finish()
        own.copy()
    assert {each.key for each in await bucket.present()} == before
    assert CHECK in before
    await own.sealed("user:ann", by="oauth")
    assert {each.key for each in await bucket.present()} == before


async def test_the_command_asks_the_replicas_and_excludes_a_backup(
    installation: Installation, settings: Settings
) -> None:
    own = installation
    ann = await own.sealed("user:ann")
    own.replicas["audit elsewhere"].files.path = own.path  # all on one machine

    def ran(stage: str) -> tuple[int, str]:
        words = ["rotate", "people", "--stage", stage, "--state-dir", str(settings.state_dir)]
        ended = CliRunner().invoke(built(), words)
        return ended.exit_code, f"{ended.output}{ended.exception or ''}"

    with only_one(settings.state_dir):
        assert "is in progress" in (await asyncio.to_thread(ran, "prepare"))[1]
    for stage in ("prepare", "switch", "finish"):
        code, output = await asyncio.to_thread(ran, stage)
        assert code == 0, output
    assert "encrypted again: 1." in " ".join(output.split())
    assert await own.shown_later(ann) == "a text of user:ann"


async def test_a_service_that_does_not_reply_is_named(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "SECONDS", 0.1)
    monkeypatch.setattr("toolbus_common.nats.connection.LATE_SECONDS", 0.1)
    load_key(settings.people_key_file)
    key_files.prepared(settings.people_key_file)
    with pytest.raises(CommandError, match="No replica of audit, codemode, executor, oauth"):
        await people.switched(operator, settings.people_key_file)
    assert (await (await operator.bucket(PEOPLE)).get(CHECK)) is None
