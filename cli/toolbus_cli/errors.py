"""What a command says when it cannot do what it was asked."""


class CommandError(Exception):
    """One sentence with the mend; the command ends with `code`."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code
