"""The environment variables of every service, from the settings models."""

from collections.abc import Iterator
from importlib import import_module

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from reference.markdown import code, table
from reference.texts import texts
from reference.types import default_of, limits_of, type_of
from toolbus_common.service.names import SERVICES
from toolbus_common.settings import Settings

PREFIX = "TOOLBUS_"


def models() -> dict[str, type[Settings]]:
    """Return the settings model of every service, by service name."""
    return {name: import_module(f"toolbus_{name}.settings").Settings for name in SERVICES}


def own_fields(model: type[Settings]) -> dict[str, FieldInfo]:
    """Return the settings of a service that the shared settings do not have."""
    return {
        name: field
        for name, field in model.model_fields.items()
        if name not in Settings.model_fields
    }


def described() -> set[str]:
    """Return every name that texts/environment.yaml must describe."""
    found = {f"every.{name}" for name in Settings.model_fields}
    for service, model in models().items():
        found |= {f"{service}.{name}" for name in own_fields(model)}
    return found


def variable(name: str, field: FieldInfo) -> str:
    """Return the environment variable of a setting."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else PREFIX + name.upper()


def generated() -> str:
    """Return one table for the shared settings and one for each service."""
    rows = texts("environment")
    parts = [f"## Every service\n\n{_table('every', dict(Settings.model_fields), rows)}"]
    parts += [
        f"## {service}\n\n{_table(service, own_fields(model), rows)}"
        for service, model in models().items()
    ]
    return "\n\n".join(parts)


def _table(service: str, fields: dict[str, FieldInfo], rows: dict[str, str]) -> str:
    return table(
        ("variable", "type", "default", "limits", "description"), _rows(service, fields, rows)
    )


def _rows(
    service: str, fields: dict[str, FieldInfo], rows: dict[str, str]
) -> Iterator[tuple[str, ...]]:
    for name, field in fields.items():
        text = rows[f"{service}.{name}"]
        size = "bytes" in text
        limits = (default_of(field, in_bytes=size), limits_of(field, in_bytes=size))
        yield code(variable(name, field)), type_of(field.annotation), *limits, text
