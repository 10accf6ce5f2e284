"""One-time sign-in links of the console."""

import json

from toolbus_cli.config_client import me
from toolbus_common.config_store.keys import create_console_admin
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import IdentityReply, IdentityRequest
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

SECONDS = 10.0


async def create_link(repository: ConfigRepository, gateway: str) -> str:
    """Return a URL that signs in as an administrator; it works once, for 15 minutes."""
    secret = await create_console_admin(repository, me())
    request = IdentityRequest(action="sign_in_link", by=me(), about=json.dumps({"secret": secret}))
    requests = RequestReply(OPERATOR, repository.bus)
    (row,) = (await requests.request(request, IdentityReply, SECONDS)).rows
    return f"{gateway}/console/link/{row['code']}"
