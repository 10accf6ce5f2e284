"""Earlier revisions that cannot be restored."""

from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from toolbus_common.errors import InvalidError, UnknownEntryError
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.topology import CONFIGURATION
from toolbus_policy.admin.revisions import configuration_at


class Stored:
    """A bucket with one revision, of a field that this version does not know."""

    async def batches(self, pattern: str) -> AsyncGenerator[list[Change]]:
        """Yield the entries."""
        assert pattern == CONFIGURATION
        yield [Change(CONFIGURATION, b'{"of_another_version": {}}', 7)]


async def test_a_revision_of_another_version_is_no_fault_of_this_replica() -> None:
    bucket = cast("Bucket", cast("Any", Stored()))
    with pytest.raises(InvalidError, match="stored revision 7") as raised:
        await configuration_at(bucket, 7)
    assert "restart" not in raised.value.reason
    with pytest.raises(UnknownEntryError, match="Revision 8 is not stored"):
        await configuration_at(bucket, 8)
