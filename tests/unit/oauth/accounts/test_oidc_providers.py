"""ID tokens of OpenID providers that are rejected before any key is fetched."""

from typing import Any, cast

import pytest

from toolbus_common.config import Configuration, Issuer
from toolbus_oauth.accounts.oidc_providers import ProviderError, Providers

ISSUER = Issuer.model_validate({"url": "https://corp.test", "client_id": "gateway"})


@pytest.mark.parametrize("response", [{}, {"id_token": None}, {"id_token": ["a.b.c"]}])
async def test_a_response_without_an_id_token_is_an_error_that_says_so(
    response: dict[str, Any],
) -> None:
    unused = cast("Any", None)
    providers = Providers(
        "https://toolbus.test", unused, unused, Configuration, lambda _: False, unused, unused
    )
    with pytest.raises(ProviderError, match="has no ID token"):
        await providers.verified_id_token("corp", ISSUER, response)
