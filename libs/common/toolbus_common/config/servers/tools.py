"""Settings of individual tools of a server."""

import re
from typing import Literal

from pydantic import Field, field_validator

from toolbus_common.config.base import Name
from toolbus_common.config.flow import FlowLabels
from toolbus_common.config.servers.results import ToolCache

Misfits = Literal["report", "strict", "none"]  # reaction to arguments that do not match the schema
LONGEST_CALL = 12 * 3600  # seconds; idempotency claims and tasks expire after a day


class ToolView(FlowLabels):
    """The settings of one tool: alias, description, visibility, retries, cache, timeouts.

    Grants, prices and events use the server's own name of the tool. `idempotent` is a statement by
    the operator that a failed call can be retried. Hints of the server never permit a retry.
    `timeout` and `max_total_timeout` (both in seconds) and `validation` override the settings of
    the server. `guards` are names of guards that apply to the calls of this tool.
    """

    alias: str = ""
    description: str = Field(default="", max_length=4096)
    hidden: bool = False
    idempotent: bool = False
    validation: Misfits | None = None
    cache: ToolCache | None = None
    guards: tuple[Name, ...] = Field(default=(), max_length=64)
    timeout: float | None = Field(default=None, gt=0, le=3600)
    max_total_timeout: float | None = Field(default=None, gt=0, le=LONGEST_CALL)

    @field_validator("alias")
    @classmethod
    def _is_a_name(cls, alias: str) -> str:
        if alias and (not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", alias) or "__" in alias):
            raise ValueError(
                "must be 1 to 64 letters, digits, '-' or '_', without two '_' in a row"
            )
        return alias
