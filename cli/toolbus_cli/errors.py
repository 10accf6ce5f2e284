"""Errors of commands."""


class CommandError(Exception):
    """A command failed; the message includes the fix, and `code` is the exit code."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code
