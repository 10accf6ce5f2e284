"""Pages that a whole gateway shows rarely, as their templates render them, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.clients.chromium_browser import Person
from toolbus_common.contracts import ApprovalState, PageReply
from toolbus_common.errors import UnavailableError
from toolbus_ingress import oauth_proxy
from toolbus_ingress.approvals import page as approval_page
from toolbus_ingress.http.jsonrpc import Response
from toolbus_oauth.account_page.page import access_page
from toolbus_oauth.storage.records import AuthorizationRequest, Grant, Ticket
from toolbus_oauth.storage.records import Person as Account
from toolbus_oauth.upstreams.connections.records import Connection
from toolbus_oauth.web import pages

NIGHT = 1_795_000_000.0
ANN = Account("local", "ann", {})
REQUEST = AuthorizationRequest(
    "id", "An application with a long name that goes on and on", "com.example.app:/back", "s", "c",
    "admin", "https://toolbus.example/api", registered=True, device="BCDF-GHJK",
)  # fmt: skip
CONNECT = AuthorizationRequest(
    "", "Toolbus", "https://login.docs.example/authorize", "", "", "files:read mail:send",
    "docs", registered=False, connect="link",
)  # fmt: skip
GRANTS = [
    Grant(f"g{at}", "id", f"Program {at} {'with a long name ' * (at % 3)}", ANN,
          "https://toolbus.example/mcp", "tools:reading tools:writing", NIGHT, NIGHT + 9e6)
    for at in range(4)
]  # fmt: skip
CONNECTIONS = [
    Connection(name, "ann", "u", "i", "r", "e", "", "c", "none", "t", NIGHT, "", (), scopes, NIGHT)
    for name, scopes in (("docs", ("files:read", "mail:send")), ("tickets", ()))
]
APPROVAL = ApprovalState(
    id="a", state="pending", key="bot", server="archive", tool="delete", method="tools/call",
    cause="rule no-deletion", requested_at=NIGHT, ends=NIGHT + 600, arguments_digest="ab12" * 16,
    arguments=f'{{"path":"/srv/{"archive-" * 30}","note":"{"and so on " * 90}', cut=True,
)  # fmt: skip
SHOWN: dict[str, Callable[[], PageReply | Response]] = {
    "unavailable": lambda: oauth_proxy._error_response(
        UnavailableError("The sign-in service does not respond."), {b"accept": b"text/html"}
    ),
    "consent-with-every-warning": lambda: pages.consent(
        Ticket(REQUEST, "b", NIGHT, "t", ANN), "t",
        ["administer Toolbus as operator", "use all tools that the rule staff grants"],
    ),
    "connect-for-all-users": lambda: pages.connect(Ticket(CONNECT, "b", NIGHT, "t"), "t"),
    "connect-sign-in": lambda: pages.sign_in(
        Ticket(CONNECT, "b", NIGHT, "t"), "t", ["corp", "partners"]
    ),
    "account-of-many-programs": lambda: access_page("ann", "t", GRANTS, CONNECTIONS),
    "approval-of-long-arguments": lambda: approval_page.decision(APPROVAL, "t"),
    "provider-unusable": lambda: pages.message_page(
        "This request cannot continue", "The provider 'corp' cannot be used.", 502
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["light", "dark", "phone"])
@pytest.mark.parametrize("page", SHOWN)
def test_a_page_is_whole_and_without_barriers(
    someone: Callable[..., Person], tmp_path: Path, page: str, kind: str
) -> None:
    phone = {"viewport": {"width": 320, "height": 640}, "is_mobile": True, "has_touch": True}
    reader = someone(**(phone if kind == "phone" else {"color_scheme": kind}))
    written = tmp_path / "page.html"
    written.write_bytes(SHOWN[page]().body)
    reader.opens(written.as_uri())
    reader.keeps(f"rendered-{page}-{kind}")
    assert not reader.overflows
