"""Audit service with a witness for its logs, and the material of an auditor."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.audit.events import allowed, completed, events_of
from harness.engines.migrated_tables import migrated
from harness.waits import until_async
from toolbus_audit.main import build
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.config import Configuration
from toolbus_common.config_store.operator_targets import NAMED, digests_of, encoded
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.evidence import verify
from toolbus_common.evidence.collection import gathered
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, CONFIGURATION
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings


async def declare(operator: Bus, **evidence: Any) -> None:
    """Apply a configuration with this evidence section."""
    configuration = Configuration.model_validate({"evidence": evidence})
    config = await operator.bucket(CONFIG)
    await config.put(NAMED, encoded(set(digests_of(configuration))))
    await config.put(CONFIGURATION, configuration.model_dump_json().encode())


@asynccontextmanager
async def auditing(settings: Settings, key_file: Path | None = None) -> AsyncIterator[Service]:
    """Run an audit service that signs five times a second."""
    own = AuditSettings(
        state_dir=migrated(settings.state_dir),
        nats_url=settings.nats_url,
        drain_seconds=5.0,
        checkpoint_seconds=0.2,
        evidence_key_file=key_file,
    )
    async with build(ProcessContext(), own).running() as service:

        async def ready() -> bool:
            return service.status().ready

        await until_async(ready, "audit is ready")
        yield service


@dataclass
class Auditor:
    """An auditor who exports bundles and compares them with separately stored checkpoints."""

    settings: Settings
    operator: Bus
    directory: Path

    async def completed(self, count: int) -> None:
        """Publish the intents and outcomes of `count` calls."""
        async with (
            events_of("policy", self.settings, self.directory) as policy,
            events_of("executor", self.settings, self.directory) as executor,
        ):
            for _ in range(count):
                result = allowed()
                await policy.publish_durable(result)
                await executor.publish_durable(completed(call_id=result.call_id))

    async def rows(self, sql: str) -> tuple[tuple[Any, ...], ...]:
        """Run a query at audit."""
        queries = RequestReply("operator", self.operator)
        return (await queries.request(AuditQuery(sql=sql), RowsReply, 20.0)).rows

    async def sealed(self, size: int, table: str = "checkpoints") -> None:
        """Wait until `size` events of acme are sealed, or cosigned if `table` is given."""

        async def there() -> bool:
            found = await self.rows(f"SELECT max(size) FROM {table} WHERE customer = 'acme'")
            return bool(found[0][0] >= size)

        await until_async(there, f"{size} events are in {table}")

    async def origin(self) -> str:
        """Return the origin line of the log of acme."""
        ((note,),) = await self.rows("SELECT note FROM checkpoints WHERE customer = 'acme' LIMIT 1")
        return str(note).partition("\n")[0]

    async def verdict(
        self, key: str, witnesses: Iterable[str] = (), seen: Iterable[Path] = (), only: int = 0
    ) -> verify.Report:
        """Return the verifier's report about the log of acme, or about its first events."""
        path = self.directory / "acme.zip"
        found = await gathered(RequestReply("operator", self.operator), "acme")
        if only:
            kept_back = tuple(each for each in found.statements if each.size <= only)
            found = replace(found, statements=kept_back)
        await found.write(path)
        keys = tuple(verify.Key(each, verify.COSIGNED) for each in witnesses)
        kept = verify.checkpoints_in(map(str, seen))
        return verify.verify(str(path), key, wanted=verify.Wanted(kept, keys))
