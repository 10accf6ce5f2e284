"""Authorization of requests whose header lines are made for each request."""

from typing import Protocol

from toolbus_common.config import Provider
from toolbus_common.config_store.operator_targets import ConfirmedTargets
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.providers.api_keys import SIGNED, ApiKey
from toolbus_executor.transport.dialer import Dialer


class Authorization(Protocol):
    """The authorization of requests to one provider."""

    async def lines(self, key: ApiKey, path: str, body: bytes, listed: str = "") -> bytes:
        """Return the header lines for one request. Raises `UpstreamDeadError`.

        `listed` is the URL of a list of models, which is requested with GET.
        """
        ...


def authorization_of(
    provider: Provider,
    values: dict[str, str],
    dialer: Dialer,
    secrets: KnownSecrets,
    confirmed: ConfirmedTargets,
) -> Authorization | None:
    """Return the authorization; None if the header line of a key is always the same.

    `values` are the resolved credentials. Tokens that are made from them are added to
    `secrets`. The libraries are imported here, because most providers need none.

    Raises:
        UpstreamDeadError: a library is missing, the credentials are invalid, or the provider may
            not use those of the machine.

    """
    if provider.ambient and not confirmed.has(provider):
        raise UpstreamDeadError(
            "It uses the credentials of this machine, which only an operator may configure; "
            "configure the provider with 'toolbus apply'.",
            sent=False,
        )
    if provider.kind == "vertex":
        from toolbus_executor.providers.endpoints.google_tokens import (  # noqa: PLC0415
            GoogleTokens,
        )

        return GoogleTokens(values, dialer, secrets, ambient=provider.ambient)
    if provider.kind == "bedrock" and (SIGNED in values or provider.ambient):
        from toolbus_executor.providers.endpoints.aws_signatures import (  # noqa: PLC0415
            AwsSignatures,
        )

        return AwsSignatures(provider.base_url, provider.region, values)
    return None
