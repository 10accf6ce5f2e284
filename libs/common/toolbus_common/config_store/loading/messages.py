"""Messages for validation errors, with the fix."""

import re
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from toolbus_common.config import ConfigModel
from toolbus_common.config_store.loading.document import ConfigPath

LONGEST_SHOWN = 40
_MEMBER = re.compile(r"<[^<>:]*: ('[^']*')>")  # <Period.DAY: 'day'>
# Sections of later versions. Their message is "not supported" instead of "unknown".
LATER = {"guardrails", "hooks", "llm"}
_NAME_RULE = (
    "is not a valid name: use at most 32 letters, digits, '-' and single '_', beginning with a "
    "letter or digit"
)
_PATTERN_RULE = "is not a valid pattern: use 1 to 256 characters, such as docs__*"


def describe_error(error: ErrorDetails, model: type[BaseModel]) -> tuple[ConfigPath, str]:
    """Return the path and the message for one validation error of pydantic."""
    path: ConfigPath = tuple(error["loc"])
    kind = error["type"]
    if path and path[-1] == "[key]":
        is_pattern = kind in ("string_too_short", "string_too_long")
        return path[:-1], _PATTERN_RULE if is_pattern else _NAME_RULE
    if kind == "extra_forbidden":
        return path, unknown_field(str(path[-1]), path[:-1], model)
    if kind == "missing":
        return path[:-1], f"needs the field '{path[-1]}'"
    return path, _describe(kind, error)


def unknown_field(name: str, parent: ConfigPath, model: type[BaseModel]) -> str:
    """Return the message for an unknown field, with the most similar known field."""
    if name in LATER:
        return "is not supported by this version"
    known = fields_at(parent, model)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"is unknown; did you mean '{close[0]}'?"
    return f"is unknown; known fields: {', '.join(known)}"


def fields_at(path: ConfigPath, model: type[BaseModel]) -> list[str]:
    """Return the names of the fields that are valid at a path."""
    current: Any = model
    for step in path:
        current = _below(current, step)
    if not _is_model(current):
        return []
    hidden = {"secret_hash"}
    names = [name for name in current.model_fields if name not in hidden]
    return [*names, "secret"] if "secret_hash" in current.model_fields else names


def _below(annotation: Any, step: str | int) -> Any:
    if _is_model(annotation):
        field = annotation.model_fields.get(str(step))
        return _model_in(field.annotation) if field else None
    arguments = get_args(annotation)
    return _model_in(arguments[-1]) if get_origin(annotation) is dict and arguments else None


def _model_in(annotation: Any) -> Any:
    """Return the model in `Model | None`, else the annotation itself."""
    models = [each for each in get_args(annotation) if _is_model(each)]
    return models[0] if models and get_origin(annotation) is not dict else annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, ConfigModel)


def _describe(kind: str, error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if kind == "string_type":
        return "must be text; put it in quotes"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "must have named fields (name: value)"
    if kind in ("tuple_type", "list_type"):
        return 'must be a list, such as ["docs__*"]'
    if kind in ("enum", "literal_error"):
        expected = _MEMBER.sub(r"\1", str(error["ctx"]["expected"]))
        return f"must be {expected}, not {shown(error['input'])}"
    return message.replace("Input should be", "must be", 1).replace("Input", "it", 1)


def shown(value: Any) -> str:
    """Return a value's repr, truncated for messages."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
