"""Earlier revisions of the stored configuration. The bus keeps the newest ones."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from toolbus_common.config import Configuration
from toolbus_common.config.stored import read_entry
from toolbus_common.errors import InvalidError, UnknownEntryError
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.topology import CONFIGURATION


@dataclass(frozen=True, slots=True)
class Revision:
    """The number of a stored revision, and when it was stored (ISO 8601)."""

    number: int
    at: str


async def revisions(bucket: Bucket) -> list[Revision]:
    """Return the stored revisions, the newest first. Raises `BusDownError`."""
    async with aclosing(_stored(bucket)) as found:
        return [Revision(each.revision, each.at) async for each in found][::-1]


async def configuration_at(bucket: Bucket, revision: int) -> Configuration:
    """Return the configuration of a stored revision, with its secrets.

    Raises:
        UnknownEntryError: this revision is not stored, or not any more.
        InvalidError: another version of Toolbus stored it in a form that this one cannot read.
        BusDownError: the bus cannot be reached.

    """
    async with aclosing(_stored(bucket)) as found:
        async for each in found:
            if each.revision == revision and each.value is not None:
                return _read(each.value, revision)
    raise UnknownEntryError(
        f"Revision {revision} is not stored: only the newest ones are. "
        "GET /api/v1/configuration/revisions lists them."
    )


def _read(value: bytes, revision: int) -> Configuration:
    try:
        return read_entry(Configuration, CONFIGURATION, value)
    except InvalidError as error:
        raise InvalidError(
            f"Another version of Toolbus stored revision {revision}, and this one cannot read it. "
            "Apply a whole configuration instead."
        ) from error


async def _stored(bucket: Bucket) -> AsyncGenerator[Change]:
    async with aclosing(bucket.batches(CONFIGURATION)) as batches:
        async for batch in batches:
            for each in batch:
                if each.value is not None:
                    yield each
