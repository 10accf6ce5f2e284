"""What is wrong with a field, as a sentence that says what would be right."""

import re
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from toolbus_common.config import ConfigModel
from toolbus_common.config_store.loading.document import Place

LONGEST_SHOWN = 40
_MEMBER = re.compile(r"<[^<>:]*: ('[^']*')>")  # <Period.DAY: 'day'>
# What DESIGN promises for later: said plainly rather than called unknown.
LATER = {"guardrails", "hooks", "llm"}
_NAME_RULE = (
    "is no name: use at most 32 letters, digits, '-' and single '_', beginning with a letter "
    "or digit"
)
_PATTERN_RULE = "is no pattern: use 1 to 256 characters, such as docs__*"


def sentence(error: ErrorDetails, model: type[BaseModel]) -> tuple[Place, str]:
    """The place and the sentence for one of pydantic's errors."""
    place: Place = tuple(error["loc"])
    kind = error["type"]
    if place and place[-1] == "[key]":
        is_pattern = kind in ("string_too_short", "string_too_long")
        return place[:-1], _PATTERN_RULE if is_pattern else _NAME_RULE
    if kind == "extra_forbidden":
        return place, unknown_field(str(place[-1]), place[:-1], model)
    if kind == "missing":
        return place[:-1], f"needs the field '{place[-1]}'"
    return place, _said(kind, error)


def unknown_field(name: str, parent: Place, model: type[BaseModel]) -> str:
    """What to say of a field nobody knows."""
    if name in LATER:
        return "is not supported by this version"
    known = fields_at(parent, model)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"is unknown; did you mean '{close[0]}'?"
    return f"is unknown; known here: {', '.join(known)}"


def fields_at(place: Place, model: type[BaseModel]) -> list[str]:
    """The fields one may write at a place."""
    current: Any = model
    for step in place:
        current = _below(current, step)
    if not _is_model(current):
        return []
    hidden = {"secret_hash"}
    names = [name for name in current.model_fields if name not in hidden]
    return [*names, "secret"] if "secret_hash" in current.model_fields else names


def _below(annotation: Any, step: str | int) -> Any:
    if _is_model(annotation):
        field = annotation.model_fields.get(str(step))
        return _declared_in(field.annotation) if field else None
    arguments = get_args(annotation)
    return _declared_in(arguments[-1]) if get_origin(annotation) is dict and arguments else None


def _declared_in(annotation: Any) -> Any:
    """The model in `Model | None`, else the annotation itself."""
    models = [each for each in get_args(annotation) if _is_model(each)]
    return models[0] if models and get_origin(annotation) is not dict else annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, ConfigModel)


def _said(kind: str, error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if kind == "string_type":
        return "must be text; put it in quotes"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "must hold named fields (name: value)"
    if kind in ("tuple_type", "list_type"):
        return 'must be a list, such as ["docs__*"]'
    if kind in ("enum", "literal_error"):
        expected = _MEMBER.sub(r"\1", str(error["ctx"]["expected"]))
        return f"must be {expected}, not {shown(error['input'])}"
    return message.replace("Input should be", "must be", 1).replace("Input", "it", 1)


def shown(value: Any) -> str:
    """A value short enough to be shown."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
