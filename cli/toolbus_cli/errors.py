"""Errors of commands."""


class CommandError(Exception):
    """A command failed; the message includes the fix, and `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
