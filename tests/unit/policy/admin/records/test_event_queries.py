"""Statements of administrators over recorded events: what a rejection says."""

from typing import Any, cast

import pytest

from toolbus_common.access.administrators import Administrator
from toolbus_common.contracts import AdminRequest
from toolbus_common.errors import InvalidConfigurationError, InvalidError
from toolbus_policy.admin.records.event_queries import EventQueries

ANN = Administrator("ann", "ann", "admin")


class RejectingAudit:
    """Audit that rejects each statement."""

    async def request(self, *_: Any) -> None:
        """Reject it."""
        raise InvalidError("This needs ClickHouse. Start it with 'toolbus up'.")


async def test_a_rejection_says_no_more_than_audit_and_the_part_of_the_body() -> None:
    queries = EventQueries(cast("Any", RejectingAudit()))
    request = AdminRequest(
        key_digest="0" * 64, operation="show_audit_rows", body=b'{"sql": "SELECT 1"}'
    )
    with pytest.raises(InvalidConfigurationError) as raised:
        await queries.show_audit_rows(request, ANN)
    reason = "This needs ClickHouse. Start it with 'toolbus up'"
    assert raised.value.reason == f"sql: {reason}."
    assert raised.value.data["errors"] == [{"location": "sql", "line": 0, "reason": reason}]
    assert not queries.free.locked()
