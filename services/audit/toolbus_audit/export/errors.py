"""Errors of targets."""


class TargetError(Exception):
    """The target does not accept files now; the message is the reason."""
