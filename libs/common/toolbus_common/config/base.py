"""What every declared thing shares: names, strictness, money's unit."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MICRO = 1_000_000  # micro-dollars in a dollar

# At most 32 characters, and never two underscores in a row: those separate server from tool.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}$")]

Pattern = Annotated[str, Field(min_length=1, max_length=256)]
Patterns = tuple[Pattern, ...]


class ConfigModel(BaseModel):
    """A declared thing: unknown fields are mistakes, and said to be."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
