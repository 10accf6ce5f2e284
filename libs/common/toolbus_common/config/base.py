"""Base of all configuration models: names, patterns, and the rejection of unknown fields."""

from typing import Annotated, Any

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


def with_tuples(fields: dict[str, Any], *, unless: str = "") -> dict[str, Any]:
    """Return the fields of an entry with tuples instead of lists, except the field `unless`.

    After a validator of a whole entry, pydantic treats its fields as Python's, and strict
    validation would reject lists.
    """
    return {
        name: value if name == unless else _with_tuples(value) for name, value in fields.items()
    }


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {name: _with_tuples(each) for name, each in value.items()}
    return value


class ConfigModel(BaseModel):
    """An entry of the configuration. Unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
