"""One event of each kind, as in its line of the stream."""

from typing import Any, get_args

import msgspec
from pydantic import BaseModel

from toolbus_common.contracts import EVENTS
from toolbus_common.contracts.events.base import Event

VALUES: dict[Any, Any] = {str: "text", int: 7, float: 1_763_708_342.25, bool: True}


def event(name: str, **given: Any) -> dict[str, Any]:
    """Return an event with every field set. `given` overrides its fields."""
    cls = EVENTS[name]
    fields = {each: _sample(field.annotation) for each, field in cls.model_fields.items()}
    body: dict[str, Any] = msgspec.json.decode(cls(**{**fields, **given}).encode())
    return {"event": name, **body, "producer": "p1", "seq": 3, "prev": "ab" * 32}


def bare(cls: type[Event]) -> dict[str, Any]:
    """Return an event with its required fields only."""
    fields = {
        each: _sample(field.annotation)
        for each, field in cls.model_fields.items()
        if field.is_required()
    }
    body: dict[str, Any] = msgspec.json.decode(cls(**fields).encode())
    return {"event": cls.NAME, **body}


def _sample(annotation: Any) -> Any:
    if annotation in VALUES:
        return VALUES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        raise NotImplementedError(annotation)
    inner = [each for each in get_args(annotation) if each is not Ellipsis]
    if getattr(annotation, "__origin__", None) is dict:
        return {"text": _sample(inner[1]) if inner[1] is not Any else 7}
    return (_sample(inner[0]),)
