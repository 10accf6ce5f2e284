"""What a reader is told when something is refused: in ClickHouse's codes, which clients know."""

BAD_ARGUMENTS = 36
UNKNOWN_DATABASE = 81
READ_ONLY = 164
TOO_MANY = 202
AUTHENTICATION_FAILED = 516
TOO_MUCH = 396
ACCESS_DENIED = 497
NOT_NOW = 210
LOGICAL_ERROR = 49
_STATUS = {
    AUTHENTICATION_FAILED: 403,
    ACCESS_DENIED: 403,
    READ_ONLY: 403,
    BAD_ARGUMENTS: 400,
    UNKNOWN_DATABASE: 404,
    TOO_MANY: 503,
    NOT_NOW: 503,
    LOGICAL_ERROR: 500,
}

# What is counted as rejected access, and as what.
REJECTING = {AUTHENTICATION_FAILED: "unauthorized", ACCESS_DENIED: "forbidden"}


class RefusedError(Exception):
    """A question that is not answered: ClickHouse's code, and a sentence."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    @property
    def status(self) -> int:
        """The status of the HTTP answer: what the engine refuses is the question's fault."""
        return _STATUS.get(self.code, 400)

    @property
    def text(self) -> str:
        """The body, as ClickHouse writes it."""
        return f"Code: {self.code}. DB::Exception: {self}\n"
