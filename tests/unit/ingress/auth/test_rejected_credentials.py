"""Counting of rejected credentials: the entrance and the reason of each response."""

import pytest

from toolbus_common.messaging.access_rejections import RejectionCounter
from toolbus_ingress.auth.rejected_credentials import count
from toolbus_ingress.http.jsonrpc import Response


class Counted(RejectionCounter):
    """A counter that records what is noted."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def note(self, entrance: str, code: str, address: str) -> None:
        """Record an entrance and a code."""
        assert address == "10.0.0.1"
        self.noted.append((entrance, code))


@pytest.mark.parametrize(
    ("path", "entrance"),
    [
        ("/mcp", "mcp"),
        ("/v1/mcp/tools/execute", "mcp"),
        ("/v1/messages", "models"),
        ("/v1/models/local/gemma", "models"),
        ("/api/v1/self", "admin"),
        ("/metrics", "http"),
    ],
)
@pytest.mark.parametrize(
    ("header", "code"),
    [(b"authorization", "unauthorized"), (b"x-api-key", "unauthorized"), (b"x", "no_credential")],
)
def test_a_rejection_is_counted_by_entrance_and_reason(
    path: str, entrance: str, header: bytes, code: str
) -> None:
    counted = Counted()
    scope = {"path": path, "headers": [(header, b"v")], "client": ("10.0.0.1", 1)}
    count(counted, scope, Response(401, b""))
    count(counted, scope, Response(402, b""))
    assert counted.noted == [(entrance, code)]
