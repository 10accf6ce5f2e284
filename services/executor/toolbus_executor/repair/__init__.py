"""Repair of tool definitions and results, so that strict clients can parse them."""

from toolbus_executor.repair.definitions import Read, read_definition
from toolbus_executor.repair.json_readers import UnreadableError

__all__ = ["Read", "UnreadableError", "read_definition"]
