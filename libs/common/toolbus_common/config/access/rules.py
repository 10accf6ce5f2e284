"""Rules on calls, in Cedar, and who is told when a person is needed."""

import re
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, field_validator

from toolbus_common.config.base import ConfigModel, Name
from toolbus_common.contracts.events.base import POSTED

CHECKPOINT = "checkpoint.signed"  # no event: what audit signs of a customer's log


class Rule(ConfigModel):
    """Cedar policies (`forbid … when {…};`) on calls that grants allow.

    `effect` is what happens to a call that one of them forbids: it is refused, or it waits for a
    person. With `shadow` it is only recorded what would have happened.
    """

    cedar: str = Field(min_length=1, max_length=65_536)
    effect: Literal["deny", "approve"] = "deny"
    shadow: bool = False
    reason: str = Field(default="", max_length=512)


class Webhook(ConfigModel):
    """Where events of these kinds (`approval.requested`, `approval.*`) are posted, signed.

    `secret` may be `${env:NAME}`, resolved by the service that posts. Of `checkpoint.signed` the
    newest is posted. With `customers` only what concerns these is.
    """

    url: str
    secret: str = Field(min_length=1, repr=False)
    events: tuple[str, ...] = ("approval.requested",)
    customers: tuple[Name, ...] = ()

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not re.match(r"^https?://[^/\s]+", url):
            raise ValueError("must begin with http:// or https:// and name a host")
        return url

    @field_validator("events")
    @classmethod
    def _are_posted(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        for event in events:
            if event.partition(".")[0] not in (*POSTED, "checkpoint"):
                known = ", ".join((*POSTED, "checkpoint"))
                raise ValueError(f"'{event}' is not posted; kinds begin with {known}")
        return events

    def wants(self, name: str, customer: str) -> bool:
        """Whether events of this name, about this customer, are posted here."""
        told = not self.customers or customer in self.customers
        return told and any(fnmatchcase(name, pattern) for pattern in self.events)
