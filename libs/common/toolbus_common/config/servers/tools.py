"""How single tools of a server are shown and called."""

import re
from typing import Literal

from pydantic import Field, field_validator

from toolbus_common.config.base import ConfigModel
from toolbus_common.config.servers.results import ToolCache

Misfits = Literal["report", "strict", "none"]  # what follows when arguments do not fit
LONGEST_CALL = 12 * 3600  # seconds; idempotency claims and tasks are forgotten after a day


class ToolView(ConfigModel):
    """How agents see a tool: under an alias, with another description, or not at all.

    Grants, prices and events keep to the name its server gave it. `idempotent` is the operator's
    word that a call may happen twice: one that failed may be tried again. A server's is not taken.
    `timeout` and `max_total_timeout` replace those of its server.
    `validation` is what follows when arguments do not fit the schema, instead of its server's word.
    """

    alias: str = ""
    description: str = Field(default="", max_length=4096)
    hidden: bool = False
    idempotent: bool = False
    validation: Misfits | None = None
    cache: ToolCache | None = None
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
