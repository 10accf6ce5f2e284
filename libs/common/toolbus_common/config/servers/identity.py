"""How a server is told who calls."""

import re

from pydantic import Field, field_validator

from toolbus_common.config.base import ConfigModel
from toolbus_common.mcp.param_headers import TOKEN

# What requests have a use for already, or carry from hop to hop.
_TAKEN = frozenset(
    {
        "accept", "authorization", "baggage", "connection", "content-length", "content-type",
        "cookie", "dpop", "expect", "host", "keep-alive", "last-event-id", "te", "traceparent",
        "tracestate", "trailer", "transfer-encoding", "upgrade", "user-agent",
    }
)  # fmt: skip
_METADATA = re.compile(r"[A-Za-z0-9_.-]+")
_OTHERS = ("mcp-", "grpc-", "proxy-", "sec-", ":")


class ServerIdentity(ConfigModel):
    """Each request says in a header, signed, who calls; the server verifies it."""

    header: str = Field(default="Toolbus-Identity", max_length=64)

    @property
    def fits_grpc(self) -> bool:
        """Whether gRPC can carry it as text."""
        return bool(_METADATA.fullmatch(self.header)) and not self.header.lower().endswith("-bin")

    @field_validator("header")
    @classmethod
    def _is_free(cls, header: str) -> str:
        if not TOKEN.fullmatch(header):
            raise ValueError("is no name a header can have; leave it out for Toolbus-Identity")
        if header.lower() in _TAKEN or header.lower().startswith(_OTHERS):
            raise ValueError(f"{header} has another use; name another, or leave it out")
        return header
