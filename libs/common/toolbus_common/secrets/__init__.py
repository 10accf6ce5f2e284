"""Secrets in external stores. The configuration refers to them; services read them on use."""

from toolbus_common.secrets.reader import Secrets
from toolbus_common.secrets.references import (
    REFERENCE,
    Reference,
    SecretError,
    Values,
    filled,
    references_in,
)
from toolbus_common.secrets.registry import key_services_of, stores_of

__all__ = [
    "REFERENCE",
    "Reference",
    "SecretError",
    "Secrets",
    "Values",
    "filled",
    "key_services_of",
    "references_in",
    "stores_of",
]  # fmt: skip
