"""The two ways a store fails: not now, and not these rows."""

from toolbus_common.errors import UnavailableError


class StoreDownError(UnavailableError):
    """The store cannot be reached, or cannot take anything now: try again later."""


class UnreadableError(Exception):
    """The store cannot read or hold a value of this insert, however often it is sent."""
