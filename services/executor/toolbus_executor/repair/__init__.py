"""What strict clients can read: definitions and results, checked and repaired."""

from toolbus_executor.repair.definitions import Read, read_definition
from toolbus_executor.repair.json_readers import UnreadableError

__all__ = ["Read", "UnreadableError", "read_definition"]
