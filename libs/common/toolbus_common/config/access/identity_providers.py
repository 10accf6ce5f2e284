"""Identity providers, and the grants of people and machines that sign in through them."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.access.admins import Role
from toolbus_common.config.access.levels import KeyTerms
from toolbus_common.config.base import ConfigModel, Name

LOCAL = "local"  # people with an account in Toolbus itself
MACHINES = "machines"  # clients that act in their own name
OWN_ISSUERS = (LOCAL, MACHINES)
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
Text = Annotated[str, Field(max_length=512)]


class Issuer(ConfigModel):
    """An OpenID provider. Toolbus accepts its access tokens.

    With `client_id`, people can also sign in with this provider. The audience of a token must be
    a URL of this gateway, or `audience`. `user` is the name of the claim that contains
    the name of an entry of `users`. If `user` is empty, signed-in people have no entry of `users`.
    `secret` can be a reference such as `${env:NAME}`, which oauth resolves.
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
                "'audience' equals 'client_id', which is the audience of ID tokens, and those "
                "grant no access; set another 'audience', or remove it"
            )
        return self


class Access(KeyTerms):
    """A rule that grants access to signed-in users and to holders of tokens, in any client.

    The rule applies to users of `issuer` whose token has all of `claims`. If several rules match,
    the first one applies. A rule has no budgets; configure budgets for users, teams and customers.
    With `role`, the users are also administrators with the rights of that role. With `dpop`, a
    token must be bound to a key of its client (RFC 9449).
    """

    issuer: Name = LOCAL
    claims: dict[Text, Text | tuple[Text, ...]] = Field(default_factory=dict)
    role: Role | None = None
    dpop: bool = False

    @model_validator(mode="after")
    def _leaves_money_to_levels(self) -> Self:
        if self.budget or self.budgets:
            raise ValueError("cannot have a budget; move it to a team, a customer or a user")
        if self.user:
            raise ValueError("has 'user', but the user is the person who signs in; remove it")
        return self
