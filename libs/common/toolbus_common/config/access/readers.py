"""Who may read the evidence with programs of their own: analysts, dashboards."""

from typing import Annotated

from pydantic import Field

from toolbus_common.config.base import ConfigModel

EVERYBODY = "*"

Whose = Annotated[str, Field(pattern=r"^(?:\*|[A-Za-z0-9_-]{1,64})$")]


class Reader(ConfigModel):
    """Somebody who asks audit's HTTP interface in SQL, and sees the events of `customers` alone.

    `*` among them means all, and events of no customer. `secret_hash` is SHA-256 of SHA-256 of the
    secret, in hex; without it, the reader is let in by nothing.
    """

    customers: tuple[Whose, ...] = Field(min_length=1, max_length=256)
    secret_hash: str = Field(default="", repr=False)
