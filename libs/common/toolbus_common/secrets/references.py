"""References to secrets kept elsewhere, as `${store:path#field}` in what is declared. Pure."""

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
    """A secret cannot be had. The message says why and what to do, and nothing of any value."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One secret: where it is kept, and which field of what is kept there, if it is JSON."""

    store: str
    path: str
    field: str = ""

    @classmethod
    def of(cls, text: str) -> "Reference":
        """The reference between the braces."""
        store, _, rest = text.partition(":")
        path, _, field = rest.partition("#")
        return cls(store, path, field)

    def __str__(self) -> str:
        """As it is written between the braces."""
        return f"{self.store}:{self.path}" + (f"#{self.field}" if self.field else "")

    @property
    def named(self) -> str:
        """What permissions name it by: a variable by its name alone, all others whole."""
        return self.path if self.store == ENVIRONMENT else str(self)


Values = Mapping[Reference, str]


def references_in(texts: Iterable[str]) -> frozenset[Reference]:
    """All references in these texts."""
    return frozenset(Reference.of(each) for text in texts for each in REFERENCE.findall(text))


def filled(text: str, found: Values) -> str:
    """The text with what was found in the place of its references."""
    return REFERENCE.sub(lambda match: found[Reference.of(match[1])], text)


def picked(kept: str, reference: Reference) -> str:
    """What a reference means of what is kept at its path.

    Raises:
        SecretError: it is empty, no JSON object, or has no such field.

    """
    if not reference.field:
        value = kept
    else:
        try:
            value = json.loads(kept)[reference.field]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SecretError(
                f"What is kept as {reference.store}:{reference.path} has no field "
                f"{reference.field}; name one that it has."
            ) from error
    if not isinstance(value, str) or not value:
        raise SecretError(f"The secret {reference} is empty, or no text; set it there.")
    return value
