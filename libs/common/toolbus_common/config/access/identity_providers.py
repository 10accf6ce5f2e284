"""Who is somebody: providers that vouch for people, and what those they vouch for may do."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.access.admins import Role
from toolbus_common.config.access.levels import KeyTerms
from toolbus_common.config.base import ConfigModel, Name

LOCAL = "local"  # whoever signs in with an account kept here
MACHINES = "machines"  # clients that act in their own name
OWN_ISSUERS = (LOCAL, MACHINES)
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
Text = Annotated[str, Field(max_length=512)]


class Issuer(ConfigModel):
    """An OpenID provider. Its access tokens are taken; with `client_id` people sign in through it.

    A token must be made for this gateway's own URL, or for exactly `audience`. `user` is the claim
    that names a person as `users` does; without it nobody it vouches for is one of those. `secret`
    may be a reference such as `${env:NAME}`, resolved by oauth.
    """

    url: Text
    audience: Text = ""
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256"), min_length=1)
    user: Text = ""
    client_id: Text = ""
    secret: str = Field(default="", repr=False)
    scopes: tuple[Text, ...] = ("openid", "profile", "email")

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^/\s?#]+[^\s?#]*", url):
            raise ValueError("must be the issuer's URL: http(s)://host/…, without ? and #")
        return url

    @model_validator(mode="after")
    def _takes_no_identity_for_access(self) -> Self:
        if self.client_id and self.audience == self.client_id:
            raise ValueError(
                "audience is the client_id: that is what ID tokens are for, and they open nothing"
            )
        return self


class Access(KeyTerms):
    """What somebody who signed in, or a token's holder, may do through any client.

    It holds for those whom `issuer` vouches for with all of `claims`; of several rules the first
    that covers somebody counts. Budgets are a matter of users, teams and customers. With `role`
    they administer as well, as far as an admin key of that role. With `dpop` a token must be bound
    to a key of its client's.
    """

    issuer: Name = LOCAL
    claims: dict[Text, Text | tuple[Text, ...]] = Field(default_factory=dict)
    role: Role | None = None
    dpop: bool = False

    @model_validator(mode="after")
    def _leaves_money_to_levels(self) -> Self:
        if self.budget or self.budgets:
            raise ValueError("has a budget; give it to a team, a customer or a user instead")
        if self.user:
            raise ValueError("names a user; who signs in is the user")
        return self
