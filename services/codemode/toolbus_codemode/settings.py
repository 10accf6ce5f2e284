"""Settings of the codemode service."""

from pydantic import Field

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """Settings of codemode, in addition to the settings of every service.

    `program_seconds` and `program_calls` limit one program. `without_seccomp` allows programs on a
    host without seccomp; use it only if every program is trusted. `search_model` adds semantic
    search: `wordllama`, or a directory with a model. With `sandbox_on_demand`, the first program
    starts the engines, and saves their memory until then.
    """

    program_seconds: float = Field(default=30.0, gt=0, le=600)
    program_calls: int = Field(default=100, ge=1, le=10_000)
    without_seccomp: bool = False
    search_model: str = ""
    sandbox_on_demand: bool = False
