"""The id of the console's client, which oauth knows without a registration."""

from typing import Any

import pytest

from toolbus_common.access.oauth_scopes import CONSOLE_CLIENT
from toolbus_common.contracts import IdentityRequest
from toolbus_common.errors import ConflictError
from toolbus_oauth.admin import IdentityAdmin


async def test_an_operator_cannot_add_a_client_with_the_id_of_the_console() -> None:
    unused: Any = None  # the request is refused before anything is read
    admin = IdentityAdmin(unused, unused, unused, unused, unused)
    about = {"client_id": CONSOLE_CLIENT, "redirect_uris": ["https://other.example/back"]}
    request = IdentityRequest(action="add_client", name="Other")
    with pytest.raises(ConflictError, match="choose another"):
        await admin._add_client(request, about)
