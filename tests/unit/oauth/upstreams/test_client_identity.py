"""Identities of Toolbus as a client of upstream servers."""

from typing import Any, cast

import pytest

from toolbus_common.config import Server
from toolbus_common.secrets import Secrets, stores_of
from toolbus_oauth.oauth_client.identity import ClientIdentity
from toolbus_oauth.upstreams.client_identity import ClientIdentities
from toolbus_oauth.upstreams.connections.records import Registration
from toolbus_oauth.upstreams.discovery import AuthorizationServer

FAR = "https://far.test"
FOUND = AuthorizationServer(FAR, "", (), {})
CONFIGURED = {"id": "gateway", "secret": "${env:FAR}", "method": "client_secret_basic"}


class Registrations:
    """The one registration."""

    registration = Registration(FAR, "enrolled", "s", "client_secret_basic")

    async def at(self, *_: object) -> Registration:
        """Return it."""
        return self.registration

    known = at


@pytest.mark.parametrize("clients", [{}, {FAR: CONFIGURED}], ids=["registered", "configured"])
async def test_the_id_is_always_in_the_form_for_servers_that_look_for_it_there(
    clients: dict[str, Any],
) -> None:
    registrations, secrets = cast("Any", Registrations()), Secrets(stores_of({"FAR": "s"}))
    identities = ClientIdentities(
        "https://toolbus.test", "", registrations, secrets, lambda *_: False
    )
    server = Server.model_validate({"url": "https://docs.test", "oauth": {"clients": clients}})
    client_id = "gateway" if clients else "enrolled"
    expected = ClientIdentity(client_id, "client_secret_basic", "s", id_in_form=True)
    assert await identities.at(server, FOUND) == expected
    assert await identities.again(server, FAR, client_id, "client_secret_basic") == expected
