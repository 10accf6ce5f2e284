"""The keys of literal secrets are replaced on a real bus: every service decrypts its own."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toolbus_cli.app import built
from toolbus_cli.config_client import opened
from toolbus_cli.errors import CommandError
from toolbus_cli.rotation import encryption, key_files, replicas
from toolbus_cli.state_dir import State
from toolbus_common.config import Configuration
from toolbus_common.config_store.literal_secrets import (
    READERS,
    WRITERS,
    Reader,
    Writer,
    create_encryption_keys,
    keys_at,
    sealed_with_others,
)
from toolbus_common.crypto.key_file import keys_beside
from toolbus_common.nats.connection import Bus
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

SECRET = "canary-of-a-literal"
WHOLE = Configuration.model_validate(
    {
        "servers": {"docs": {"url": "https://docs.example/mcp", "headers": {"X-Key": SECRET}}},
        "sinks": {"siem": {"url": "https://siem.example", "headers": {"X-Key": SECRET}}},
        "issuers": {"corp": {"url": "https://id.example", "client_id": "t", "secret": SECRET}},
    }
)


class KilledError(BaseException):
    """The command was killed."""


class Installation:
    """The encryption keys, the stored configuration, the command, and replicas with these keys."""

    def __init__(self, settings: Settings, operator: Bus) -> None:
        self.state = State(settings.state_dir)
        self.keys = settings.encryption
        self._settings = settings
        self._operator = operator
        self._replicas: dict[str, AsyncExitStack] = {}

    async def apply(self, configuration: Configuration) -> int:
        """Apply a configuration; return the number of changes."""
        async with opened(self._operator, self.state) as repository:
            return len((await repository.apply(configuration, "file")).changes)

    async def stored(self) -> Configuration:
        """Return the stored configuration, which must be readable by each service."""
        async with opened(self._operator, self.state) as repository:
            stored = await repository.declared()
        assert stored.by == "file"
        assert SECRET not in stored.configuration.model_dump_json()
        for service, section in (("executor", "servers"), ("audit", "sinks"), ("oauth", "issuers")):
            read = Reader.at(service, self.keys).opened(stored.configuration)
            assert getattr(read, section) == getattr(WHOLE, section)
        return stored.configuration

    async def restarted(self, *names: str) -> None:
        """Restart these replicas, or all: two of executor, and one of each other service."""
        for name in names or ("policy", *READERS, "executor 2"):
            if name in self._replicas:
                await self._replicas.pop(name).aclose()
            service = Service(name.partition(" ")[0], self._settings)
            used = Writer.at(self.keys).accepted
            if service.name in READERS:
                used = keys_at(service.name, self.keys)
            service.shared_keys.add("encryption", *used)
            stack = self._replicas[name] = AsyncExitStack()
            await stack.enter_async_context(service.running())
            assert service.is_ready

    async def end(self) -> None:
        """Stop the replicas."""
        for each in self._replicas.values():
            await each.aclose()

    async def rotate(self, stage: str) -> tuple[int, str]:
        """Run a stage of the rotation."""
        words = ["rotate", "encryption", "--stage", stage, "--state-dir", str(self.state.root)]
        ended = await asyncio.to_thread(CliRunner().invoke, built(), words)
        return ended.exit_code, " ".join(f"{ended.output}{ended.exception or ''}".split())


@pytest.fixture
async def installation(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Installation]:
    monkeypatch.setattr(key_files, "STORED_SECONDS", 0.0)
    monkeypatch.setattr(replicas, "SECONDS", 0.3)
    create_encryption_keys(settings.encryption)
    found = Installation(settings, operator)
    await found.apply(WHOLE)
    await found.restarted()
    yield found
    await found.end()


async def test_secrets_stay_readable_and_are_encrypted_with_the_new_keys(
    installation: Installation,
) -> None:
    own = installation
    digests = Writer.at(own.keys).accepted
    earlier = {name: (own.keys / f"{name}.key").read_bytes() for name in READERS}
    assert "run '--stage prepare' first" in (await own.rotate("switch"))[1]
    for stage in ("prepare", "switch"):
        assert (await own.rotate(stage))[0] == 0
        await own.stored()
        if stage == "switch":
            await own.restarted("policy", "oauth", "executor 2")
            refused = (await own.rotate("finish"))[1]
            assert "do not use the new key yet: audit (" in refused
            assert refused.count("executor (") == 1, "the other replica of executor uses it"
        await own.restarted()
    assert "encrypted again: 3." in (await own.rotate("finish"))[1]
    stored = await own.stored()
    assert sealed_with_others(own.keys, stored) == []
    assert [*own.keys.glob("*.*.key")] == []
    for name, key in earlier.items():
        assert (own.keys / f"{name}.key").read_bytes() != key
        assert SECRET not in Reader(name, [key]).opened(stored).model_dump_json()
    assert len(Writer.at(own.keys).accepted) == 1
    assert Writer.at(own.keys).accepted != digests
    await own.restarted()
    assert await own.apply(WHOLE) == 0, "a value that is applied again is still recognized"


async def test_a_killed_switch_is_repeated(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill it after its first change of a file, its second one when it is repeated, and so on."""
    own, kills, left = installation, 0, 0
    await own.rotate("prepare")
    names = (*READERS, "digests")
    known = {name: set(keys_at(name, own.keys)) for name in names}

    def killed_after(function: Any) -> Any:
        def changed(*given: Any) -> None:
            nonlocal left
            function(*given)
            left -= 1
            if not left:
                raise KilledError

        return changed

    ended = False
    while not ended:
        left = kills + 1
        with monkeypatch.context() as patched:
            patched.setattr(os, "link", killed_after(os.link))
            patched.setattr(Path, "replace", killed_after(Path.replace))
            try:
                encryption.switched(own.keys)
                ended = True
            except KilledError:
                kills += 1
            except CommandError:
                ended = True  # it was killed after its last change
        assert {name: set(keys_at(name, own.keys)) for name in names} == known
        assert set(Writer.at(own.keys).accepted) == known["digests"]
        await own.stored()
    assert kills > len(READERS)
    await own.restarted()
    assert (await own.rotate("finish"))[0] == 0
    assert sealed_with_others(own.keys, await own.stored()) == []


async def test_a_secret_that_cannot_be_decrypted_keeps_every_key(
    installation: Installation,
) -> None:
    own = installation
    for stage in ("prepare", "switch"):
        await own.rotate(stage)
    await own.restarted()
    (earlier,) = keys_beside(own.keys / "executor.key")
    away = earlier.rename(earlier.with_name("away"))
    code, output = await own.rotate("finish")
    assert code != 0
    assert "decrypts servers.docs.headers.X-Key; apply these secrets again" in output
    assert keys_beside(own.keys / "audit.key")
    away.rename(earlier)
    assert (await own.rotate("finish"))[0] == 0
    await own.stored()


async def test_a_machine_without_the_services_keys_cannot_rotate(
    installation: Installation,
) -> None:
    own = installation
    (own.keys / "oauth.key").unlink()
    assert "keys of all services" in (await own.rotate("prepare"))[1]
    assert (own.keys / WRITERS).exists()
    assert [*own.keys.glob("*.next.key")] == []
