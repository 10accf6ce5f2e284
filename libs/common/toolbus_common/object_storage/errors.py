"""Errors of targets.

* TargetError
  + MissingFileError
"""


class TargetError(Exception):
    """The target does not accept files now; the message is the reason."""


class MissingFileError(TargetError):
    """The target has no file with this path."""
