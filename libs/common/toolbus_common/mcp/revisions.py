"""The MCP revisions that the endpoint serves, newest first."""

MODERN = ("2026-07-28",)  # without a handshake
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")  # with a handshake
