"""Base of all configuration models: names, patterns, and the rejection of unknown fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MICRO = 1_000_000  # micro-dollars in a dollar

# At most 32 characters, without two underscores in a row, which separate server and tool.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}$")]

# The region of a provider of models, such as `eu` or `eu-central-1`.
Region = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

Pattern = Annotated[str, Field(min_length=1, max_length=256)]
Patterns = tuple[Pattern, ...]


STORED_VALUE = "(set)"  # replaces a stored credential in all output
SEALED_VALUE = "sealed:v1:"  # begins a literal secret that is encrypted for its service


class ConfigModel(BaseModel):
    """An entry of the configuration. Unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
