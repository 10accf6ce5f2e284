"""Readers: people and programs that query the audit data themselves, such as dashboards."""

from typing import Annotated

from pydantic import Field

from toolbus_common.config.base import ConfigModel

EVERYBODY = "*"

Whose = Annotated[str, Field(pattern=r"^(?:\*|[A-Za-z0-9_-]{1,64})$")]


class Reader(ConfigModel):
    """A user of audit's SQL interface over HTTP. The user sees only the events of `customers`.

    The value `*` means all customers, and also events without a customer. `secret_hash` is SHA-256
    of SHA-256 of the secret, in hex. A reader without a secret hash has no access.
    """

    customers: tuple[Whose, ...] = Field(min_length=1, max_length=256)
    secret_hash: str = Field(default="", repr=False)
