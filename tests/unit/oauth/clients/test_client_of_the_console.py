"""The console's client, which oauth knows without a registration: its id, and its address."""

from typing import Any

import pytest

from toolbus_common.access.oauth_scopes import CONSOLE_CLIENT, CONSOLE_REDIRECT
from toolbus_common.contracts import IdentityRequest
from toolbus_common.errors import ConflictError
from toolbus_oauth.admin import IdentityAdmin
from toolbus_oauth.server.authorize_request import _redirect
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import PageError


async def test_an_operator_cannot_add_a_client_with_the_id_of_the_console() -> None:
    unused: Any = None  # the request is refused before anything is read
    admin = IdentityAdmin(unused, unused, unused, unused, unused)
    about = {"client_id": CONSOLE_CLIENT, "redirect_uris": ["https://other.example/back"]}
    request = IdentityRequest(action="add_client", name="Other")
    with pytest.raises(ConflictError, match="choose another"):
        await admin._add_client(request, about)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "https://toolbus.example"])
def test_no_other_program_of_the_machine_receives_the_code_of_the_console(origin: str) -> None:
    own = f"{origin}{CONSOLE_REDIRECT}"
    console = Client(CONSOLE_CLIENT, "The console", (own,))
    assert _redirect(console, own) == _redirect(console, None) == own
    for other in ("http://127.0.0.1:9999", "http://127.0.0.1", "http://localhost:8080"):
        with pytest.raises(PageError, match="did not register"):
            _redirect(console, f"{other}{CONSOLE_REDIRECT}")
    native = Client("native", "A program", ("http://127.0.0.1/back",))
    assert _redirect(native, "http://127.0.0.1:9999/back")
