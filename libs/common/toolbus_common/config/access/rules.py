"""Rules for calls, in the policy language Cedar, and webhooks for events."""

import re
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, field_validator

from toolbus_common.config.base import SEALED_VALUE, STORED_VALUE, ConfigModel, Name
from toolbus_common.contracts.events.base import POSTED
from toolbus_common.crypto.webhook_secret import FORM, key_of
from toolbus_common.secrets import REFERENCE

CHECKPOINT = "checkpoint.signed"  # not an event: audit signs a checkpoint of each customer's log


class Rule(ConfigModel):
    """Cedar policies (`forbid … when {…};`) that apply to granted calls.

    If a policy forbids a call, `effect` decides whether the call is denied or waits for approval.
    With `shadow`, the effect is recorded but not applied.
    """

    cedar: str = Field(min_length=1, max_length=65_536)
    effect: Literal["deny", "approve"] = "deny"
    shadow: bool = False
    reason: str = Field(default="", max_length=512)


class Webhook(ConfigModel):
    """A URL that receives signed events of these kinds (`approval.requested`, `approval.*`).

    `secret` can be a reference such as `${env:NAME}`, which audit resolves. Its value is `whsec_`
    and the Base64 of 24 to 64 bytes. During a rotation it can contain several such values,
    separated by spaces. If several `checkpoint.signed` events are waiting, only the newest is
    posted. `customers` limits the events to these customers.
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

    @field_validator("secret")
    @classmethod
    def _has_signing_keys(cls, secret: str) -> str:
        if secret == STORED_VALUE or secret.startswith(SEALED_VALUE):
            return secret
        words = REFERENCE.sub("${}", secret).split()
        try:
            for word in words:
                if "${}" not in word:  # audit checks the value of a reference when it resolves it
                    key_of(word)
        except ValueError:
            words = []
        if not words:
            raise ValueError(
                f"must be {FORM}, because receivers verify no other signature; create one: "
                'echo "whsec_$(openssl rand -base64 32)"'
            )
        return secret

    @field_validator("events")
    @classmethod
    def _are_posted(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        for event in events:
            if event.partition(".")[0] not in (*POSTED, "checkpoint"):
                known = ", ".join((*POSTED, "checkpoint"))
                raise ValueError(
                    f"'{event}' events are not sent to webhooks; names begin with {known}"
                )
        return events

    def wants(self, name: str, customer: str) -> bool:
        """Return whether this webhook receives events of this name and customer."""
        relevant = not self.customers or customer in self.customers
        return relevant and any(fnmatchcase(name, pattern) for pattern in self.events)
