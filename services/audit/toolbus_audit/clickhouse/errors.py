"""Errors of the store: temporarily unavailable, or rows that it rejects permanently."""

from toolbus_common.errors import UnavailableError


class StoreDownError(UnavailableError):
    """The store is unreachable or rejects all work now; retry later."""


class RowsRejectedError(Exception):
    """The store cannot parse or represent a value of this insert; a retry fails too."""
