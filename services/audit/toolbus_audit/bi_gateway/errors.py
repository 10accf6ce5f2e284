"""Errors of the BI gateway, with the codes of ClickHouse, which its clients understand."""

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

# Error codes that count as rejected access, and the code of that event.
REJECTIONS = {AUTHENTICATION_FAILED: "unauthorized", ACCESS_DENIED: "forbidden"}


class GatewayError(Exception):
    """Rejected request, with ClickHouse's error code and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """HTTP status of the response; 400 for every error of the engine."""
        return _STATUS.get(self.code, 400)

    @property
    def text(self) -> str:
        """Body of the response in ClickHouse's format."""
        return f"Code: {self.code}. DB::Exception: {self}\n"
