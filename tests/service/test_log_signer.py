"""The log signer on a real bus, and evidence from the stream to the verifier."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.audit.events import allowed, bus_of, completed, events_of
from harness.audit.sealed_logs import seen
from harness.audit.witnessed_audit import auditing
from harness.waits import until_async
from toolbus_audit.transparency_log.checkpoint import load_signer
from toolbus_audit.transparency_log.log_signer import Log, LogSigner, OvertakenError
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.evidence import bundle, verify
from toolbus_common.evidence.collection import gathered
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.stream_reader import StreamEntry, created_at, read_from
from toolbus_common.nats.topology import EVENTS, SEALS
from toolbus_common.settings import Settings


class Sealing:
    """A log signer as in the audit service; `told` are the announced logs of each customer."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self.announced: dict[str, list[Log]] = {}
        self._key = settings.state_dir / "evidence" / "key.pem"
        self._bus = bus

    async def begin(self) -> LogSigner:
        """Start a signer that continues where the last one ended."""
        sealing = load_signer("toolbus", self._key)
        sealer = LogSigner(await self._bus.bucket(SEALS), sealing, self._read, self._announce)
        await sealer.start(await created_at(self._bus.client, EVENTS))
        return sealer

    async def _read(self, first: int) -> list[StreamEntry]:
        return await read_from(self._bus.client, EVENTS, first, "tb.event.>")

    async def _announce(self, signed: list[tuple[str, Log]]) -> None:
        for customer, log in signed:
            self.announced.setdefault(customer, []).append(log)

    def sizes(self, customer: str) -> list[int]:
        """Return the sizes of a customer's announced logs."""
        return [log.size for log in self.announced.get(customer, [])]


@pytest.fixture
async def sealing(settings: Settings) -> AsyncIterator[Sealing]:
    async with bus_of("audit", settings) as bus:
        yield Sealing(settings, bus)


async def test_every_customer_has_a_log_of_its_own(
    sealing: Sealing, settings: Settings, tmp_path: Path
) -> None:
    async with events_of("policy", settings, tmp_path) as policy:
        for customer in ("acme", "acme", "bolt", "acme"):
            await policy.publish_durable(allowed(customer=customer))
    await (await sealing.begin()).sign_all()
    assert (sealing.sizes("acme"), sealing.sizes("bolt")) == ([3], [1])


async def test_a_restarted_signer_continues_and_announces_its_last_checkpoints_again(
    sealing: Sealing, settings: Settings, tmp_path: Path
) -> None:
    async with events_of("policy", settings, tmp_path) as policy:
        await policy.publish_durable(allowed())
        await (await sealing.begin()).sign_all()
        await policy.publish_durable(allowed())
        await policy.publish_durable(allowed())
    await (await sealing.begin()).sign_all()
    assert sealing.sizes("acme") == [1, 1, 3]
    assert sealing.announced["acme"][0] == sealing.announced["acme"][1]


async def test_a_signer_killed_between_checkpoint_and_position_signs_nothing_twice(
    sealing: Sealing, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(_sealer: LogSigner) -> None:
        raise KeyboardInterrupt

    async with events_of("policy", settings, tmp_path) as policy:
        for _ in range(3):
            await policy.publish_durable(allowed())
        with monkeypatch.context() as patched:
            patched.setattr(LogSigner, "_save_position", killed)
            with pytest.raises(KeyboardInterrupt):
                await (await sealing.begin()).sign_all()
        await policy.publish_durable(allowed())
    await (await sealing.begin()).sign_all()
    assert sealing.sizes("acme") == [3, 4]


async def test_only_one_of_two_signers_writes_and_the_other_stops(
    sealing: Sealing, settings: Settings, tmp_path: Path
) -> None:
    first, second = await sealing.begin(), await sealing.begin()
    async with events_of("policy", settings, tmp_path) as policy:
        await policy.publish_durable(allowed())
    await first.sign_all()
    with pytest.raises(OvertakenError):
        await second.sign_all()
    assert sealing.sizes("acme") == [1]


async def rows(requests: RequestReply, sql: str) -> tuple[tuple[Any, ...], ...]:
    return (await requests.request(AuditQuery(sql=sql), RowsReply, 20.0)).rows


async def test_exported_evidence_verifies_and_an_edited_row_is_detected(
    settings: Settings, operator: Bus, tmp_path: Path
) -> None:
    requests, path = RequestReply("operator", operator), tmp_path / "evidence.zip"
    keys = tmp_path / "keys"  # may be read-only
    async with (
        auditing(settings, keys / "key.pem") as service,
        events_of("policy", settings, tmp_path) as policy,
        events_of("executor", settings, tmp_path) as executor,
    ):
        for number in range(3):
            await policy.publish_durable(allowed(call_id=f"c{number}"))
            await executor.publish_durable(completed(call_id=f"c{number}"))

        async def sealed() -> bool:
            found = await rows(
                requests, "SELECT max(size) FROM checkpoints WHERE customer = 'acme'"
            )
            return bool(found[0][0] == 6)

        await until_async(sealed, "six events are in a checkpoint")
        assert [each.name for each in keys.iterdir()] == ["key.pem"]
        assert (settings.state_dir / "evidence" / "acme.jsonl").exists()
        key = str(service.status().details["signed_by"])
        found = await gathered(requests, "acme")
        assert await found.write(path) == found.size == 6
        assert verify.verify(str(path), key).text()["valid"]

        async def with_one_edited() -> AsyncIterator[str]:
            async for line in found.lines():
                yield line.replace('"c1"', '"c9"')

        await bundle.write(
            path,
            customer="acme",
            stream=found.stream,
            start=None,
            checkpoints=found.statements,
            events=with_one_edited(),
        )
    wrong = verify.verify(str(path), key, seen(found.statements[-1])).found
    assert {"tree", "altered"} <= {kind for kind, _ in wrong}
