"""Settings of the codemode service."""

from pydantic import Field

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """`program_seconds` and `program_calls` bound one program.

    `without_seccomp` lets programs run on a host that cannot confine them: only where every
    program is trusted. `search_model` has search go by meaning too: `wordllama`, or a directory.
    """

    program_seconds: float = Field(default=30.0, gt=0, le=600)
    program_calls: int = Field(default=100, ge=1, le=10_000)
    without_seccomp: bool = False
    search_model: str = ""
