"""References to secrets in the configuration, in the form `${store:path#field}`."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ENVIRONMENT, FILE = "env", "file"
REFERENCE = re.compile(
    r"\$\{(env:[A-Za-z_][A-Za-z0-9_]*"
    r"|(?:file|vault|aws|gcp|azure|sealed):[^{}#\s]{1,512}(?:#[^{}#\s]{1,128})?)\}"
)


class SecretError(Exception):
    """A secret is not available. The message contains the reason and the fix, but no secret."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A reference to a secret: its store, its path, and the field to select from a JSON value."""

    store: str
    path: str
    field: str = ""

    @classmethod
    def of(cls, text: str) -> "Reference":
        """Parse a reference in the form `store:path#field`, without `${` and `}`."""
        store, _, rest = text.partition(":")
        path, _, field = rest.partition("#")
        return cls(store, path, field)

    def __str__(self) -> str:
        """Return the reference without `${` and `}`."""
        return f"{self.store}:{self.path}" + (f"#{self.field}" if self.field else "")

    @property
    def named(self) -> str:
        """The name that permissions use: a variable's name, or the text of any other reference."""
        return self.path if self.store == ENVIRONMENT else str(self)


Values = Mapping[Reference, str]


def references_in(texts: Iterable[str]) -> frozenset[Reference]:
    """Return all references in these texts."""
    return frozenset(Reference.of(each) for text in texts for each in REFERENCE.findall(text))


def filled(text: str, found: Values) -> str:
    """Return the text with each reference replaced by its value."""
    return REFERENCE.sub(lambda match: found[Reference.of(match[1])], text)


def selected(stored: str, reference: Reference) -> str:
    """Return the value of a reference. `stored` is the text at the reference's path.

    Raises:
        SecretError: the value is empty or not a text, or the field does not exist.

    """
    if not reference.field:
        value = stored
    else:
        try:
            value = json.loads(stored)[reference.field]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SecretError(
                f"The secret {reference.store}:{reference.path} has no field "
                f"'{reference.field}'; use one of its fields."
            ) from error
    if not isinstance(value, str) or not value:
        raise SecretError(f"The secret {reference} is empty or not text; set it in its store.")
    return value
