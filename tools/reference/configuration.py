"""Every section and field of toolbus.yaml, from the configuration models."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from reference.markdown import code, table
from reference.texts import texts
from reference.types import default_of, limits_of, type_of
from toolbus_common.config import Configuration
from toolbus_common.config.access.levels import KeyTerms, Level
from toolbus_common.config.audit.exports import Leaving, Place

SHARED = (Level, KeyTerms, Place, Leaving)  # models whose fields other models inherit
INTERNAL = {"secret_hash", "revoked"}  # only commands write these fields
WITH_SECRET = ("Key", "Admin", "Reader")  # `secret` is replaced with its hash on loading


def models() -> list[type[BaseModel]]:
    """Return every model of the configuration once, in the order of first use."""
    found: dict[type[BaseModel], None] = {}

    def walk(annotation: Any) -> None:
        for each in get_args(annotation):
            walk(each)
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            return
        if annotation in found:
            return
        found[annotation] = None
        for field in annotation.model_fields.values():
            walk(field.annotation)

    walk(Configuration)
    del found[Configuration]
    return [*found, *(shared for shared in SHARED if shared not in found)]


def bases(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the shared models whose fields a model inherits."""
    return [base for base in model.__mro__[1:] if base in SHARED]


def own_fields(model: type[BaseModel]) -> list[str]:
    """Return the fields of a model that its shared models do not have."""
    taken = {name for base in bases(model) for name in base.model_fields}
    redefined = {name for name in model.__annotations__ if name in model.model_fields}
    return [
        name
        for name in model.model_fields
        if (name not in taken or name in redefined) and name not in INTERNAL
    ]


def described() -> set[str]:
    """Return every name that texts/configuration.yaml must describe."""
    names = {f"sections.{name}" for name in Configuration.model_fields}
    for model in models():
        names.add(model.__name__)
        names |= {f"{model.__name__}.{name}" for name in own_fields(model)}
        if model.__name__ in WITH_SECRET:
            names.add(f"{model.__name__}.secret")
    return names


def generated() -> str:
    """Return the tables of sections and of every model."""
    descriptions = texts("configuration")
    sections = table(
        ("section", "content", "description"),
        (
            (code(name), type_of(field.annotation), descriptions[f"sections.{name}"])
            for name, field in Configuration.model_fields.items()
        ),
    )
    parts = [f"## Sections\n\n{sections}"]
    parts += [_model(model, descriptions) for model in models()]
    return "\n\n".join(parts)


def _model(model: type[BaseModel], descriptions: dict[str, str]) -> str:
    name = model.__name__
    text = descriptions[name]
    inherited = bases(model)
    if inherited:
        links = " and ".join(
            f"[{base.__name__}](#{base.__name__.lower()})" for base in _nearest(inherited)
        )
        text += f" It also has every field of {links}."
    rows = list(_rows(model, descriptions))
    fields = table(("field", "type", "default", "limits", "description"), rows) if rows else ""
    return f"## {name}\n\n{text}\n\n{fields}".rstrip()


def _nearest(inherited: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """Return the shared models that no other model in `inherited` inherits."""
    return [
        base
        for base in inherited
        if not any(base is not other and issubclass(other, base) for other in inherited)
    ]


def _rows(model: type[BaseModel], descriptions: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for name in own_fields(model):
        field = model.model_fields[name]
        text = descriptions[f"{model.__name__}.{name}"]
        size = "bytes" in text
        limits = (default_of(field, in_bytes=size), limits_of(field, in_bytes=size))
        yield code(name), type_of(field.annotation), *limits, text
    if model.__name__ in WITH_SECRET:
        text = descriptions[f"{model.__name__}.secret"]
        yield code("secret"), "text", "", "at least 24 characters", text
