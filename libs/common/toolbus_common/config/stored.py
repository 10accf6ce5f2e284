"""Stored entries of the configuration, which a newer version may have written."""

from typing import TypeVar

from pydantic import ValidationError

from toolbus_common.config.base import ConfigModel
from toolbus_common.errors import InvalidError

M = TypeVar("M", bound=ConfigModel)
_SHOWN = 3  # unknown fields that an error lists


def read_entry(model: type[M], key: str, value: bytes) -> M:
    """Return a stored entry. Raises `InvalidError` if only a newer version can read it."""
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        fields = (".".join(map(str, each["loc"])) for each in error.errors(include_input=False))
        shown = ", ".join([each for each in fields if each][:_SHOWN])
        raise InvalidError(
            f"This version of Toolbus cannot read the entry '{key}' of the stored configuration"
            f"{f' ({shown})' if shown else ''}; a newer version wrote it. Run that version, or use "
            "it to apply a configuration without these fields; then restart this replica."
        ) from error
