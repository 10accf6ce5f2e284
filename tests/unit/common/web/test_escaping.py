"""Every page shows every value of others as text: no markup, no template, nothing invisible."""

import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest

from toolbus_cli.analytics import report_page
from toolbus_cli.analytics.report_data import Report
from toolbus_common.contracts import ApprovalState
from toolbus_common.errors import UnavailableError
from toolbus_common.web.json_view import visible
from toolbus_ingress import oauth_proxy
from toolbus_ingress.approvals import page as approval_page
from toolbus_oauth.account_page.page import access_page
from toolbus_oauth.storage.records import AuthorizationRequest, Grant, Person, Ticket
from toolbus_oauth.upstreams.connections.records import Connection
from toolbus_oauth.web import pages
from toolbus_oauth.web.errors import PageError

TEXTS = (
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    '" autofocus onfocus="alert(1)',
    "</title></style></pre><svg onload=alert(1)>",
    "<!--",
    "]]><b>",
    "&lt;b&gt;&amp;&#60;",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "{{7*7}}",
    "{% raw %}{#",
    "${7*7} #{7*7} <%= 7*7 %>",
    "invoice\u202egpj.exe",
    "a\u2066b\u2069c\u200bd\u00ade\ufefff",
    "line\u2028break\x00\x1b[2J",
    "tag\U000e0041",
)
NO_URL = str.maketrans("", "", "/#?[]@:")
FIELDS: dict[str, Any] = {
    "client_id": "id", "client": "Acme", "redirect": "https://acme.test/back", "state": "s",
    "challenge": "c", "scope": "tools", "resource": "https://bus.test/mcp",
}  # fmt: skip
GRANT: dict[str, Any] = {
    "id": "g", "client_id": "id", "client": "Acme", "person": Person("local", "ann", {}),
    "resource": "r", "scope": "tools", "made": 0.0, "ends": 9.0,
}  # fmt: skip
CONNECTION: dict[str, Any] = {
    "server": "docs", "user": "ann", "url": "u", "issuer": "i", "resource": "r", "endpoint": "e",
    "revocation": "", "client_id": "c", "method": "none", "token": "t", "ends": 0.0, "refresh": "",
    "requested": (), "scopes": ("read",), "made": 0.0,
}  # fmt: skip
APPROVAL: dict[str, Any] = {
    "id": "a", "state": "pending", "key": "bot", "server": "docs", "tool": "search",
    "method": "tools/call", "cause": "key:bot", "requested_at": 0.0, "ends": 9.0,
    "arguments": "{}", "arguments_digest": "d",
}  # fmt: skip
FIGURES: dict[str, Any] = {
    **dict.fromkeys(("all_calls", "all_completed", "all_failed", "all_denied", "all_errors"), 2),
    "dollars": 1.5, "p50_ms": 3.0, "p95_ms": 9.0,
}  # fmt: skip


def ticket(user: str = "ann", **fields: Any) -> Ticket:
    person = Person("local", user, {})
    return Ticket(AuthorizationRequest(**{**FIELDS, **fields}), "browser", 9.0, "id", person)


def grant(**fields: str) -> bytes:
    return access_page("ann", "sealed", [Grant(**{**GRANT, **fields})], []).body


def connection(**fields: Any) -> bytes:
    return access_page("ann", "sealed", [], [Connection(**{**CONNECTION, **fields})]).body


def approval(**fields: Any) -> bytes:
    return approval_page.decision(ApprovalState(**{**APPROVAL, **fields}), "sealed").body


def connect(user: str = "ann", **fields: str) -> bytes:
    return pages.connect(ticket(user, connect="link", **{"client_id": user, **fields}), "t").body


def report(name: str = "docs__search", **fields: Any) -> bytes:
    rows = [{"name": name, **FIGURES}]
    steps = [{"step": "2026-11-20 12:00:00", **FIGURES}]
    whole: dict[str, Any] = {
        "by": "tool", "since": "2026-11-20 12:00:00", "until": "2026-11-21 12:30:00",
        "total": FIGURES, "tokens": {"spent": 5}, "table": rows, "steps": steps, **fields,
    }  # fmt: skip
    return report_page.page(Report(**whole)).encode()


def unavailable(text: str) -> bytes:
    shown = oauth_proxy._error_response(UnavailableError(text), {b"accept": b"text/html"})
    return shown.body


PAGES: dict[str, Callable[[str], bytes]] = {
    "sign-in: client name": lambda text: pages.sign_in(ticket(client=text), "t", []).body,
    "sign-in: client id": lambda text: (
        pages.sign_in(ticket(client="", client_id=text), "t", []).body
    ),
    "sign-in: provider": lambda text: pages.sign_in(ticket(), "t", [text]).body,
    "sign-in: error": lambda text: pages.sign_in(ticket(), "t", ["corp"], text, 403).body,
    "sign-in: ticket": lambda text: pages.sign_in(ticket(), text, []).body,
    "sign-in: server": lambda text: (
        pages.sign_in(ticket(connect="link", resource=text), "t", []).body
    ),
    "provider: name": lambda text: pages.provider_link(text, "https://corp.test/a?b=c&d=e").body,
    "provider: address": lambda text: pages.provider_link("corp", f"https://corp.test/{text}").body,
    "consent: client name": lambda text: pages.consent(ticket(client=text), "t", []).body,
    "consent: user": lambda text: pages.consent(ticket(text), "t", ["use all tools"]).body,
    "consent: scope": lambda text: pages.consent(ticket(), "t", [text, "use all tools"]).body,
    "consent: resource": lambda text: pages.consent(ticket(resource=text), "t", []).body,
    "consent: device code": lambda text: pages.consent(ticket(device=text), "t", []).body,
    "consent: redirect host": lambda text: (
        pages.consent(ticket(redirect=f"https://{text.translate(NO_URL)}/"), "t", []).body
    ),
    "device: error": lambda text: pages.device(text, 400).body,
    "message: title": lambda text: pages.message_page(text, "m").body,
    "message: text": lambda text: pages.message_page("Done", text).body,
    "connect: user": connect,
    "connect: server": lambda text: connect(resource=text),
    "connect: scope": lambda text: connect(scope=text),
    "account: user": lambda text: access_page(text, "t", [], []).body,
    "account: client name": lambda text: grant(client=text),
    "account: client id": lambda text: grant(client="", client_id=text),
    "account: scope": lambda text: grant(scope=text),
    "account: resource": lambda text: grant(resource=text),
    "account: grant": lambda text: grant(id=text),
    "account: server": lambda text: connection(server=text),
    "account: scope of a server": lambda text: connection(scopes=("read", text)),
    "key: error": lambda text: approval_page.sign_in(text, 403).body,
    "approval: server": lambda text: approval(server=text),
    "approval: tool": lambda text: approval(tool=text),
    "approval: method": lambda text: approval(method=text),
    "approval: key": lambda text: approval(key=text),
    "approval: cause": lambda text: approval(cause=text),
    "approval: digest": lambda text: approval(arguments_digest=text),
    "approval: arguments": lambda text: approval(arguments=text, cut=True),
    "approval: an argument": lambda text: approval(
        arguments=json.dumps({"text": text}, ensure_ascii=False)
    ),
    "approval: error": lambda text: (
        approval_page.decision(ApprovalState(**APPROVAL), "t", text).body
    ),
    "approval: message": lambda text: approval_page.message(text, 400).body,
    "unavailable: error": unavailable,
    "report: name": report,
    "report: by": lambda text: report(by=text),
    "report: code": lambda text: report(codes=[{"code": text, "calls": 3}]),
}


@dataclass
class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, and all that it shows."""

    elements: list[tuple[str, ...]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        values = {name: value or "" for name, value in attrs}
        self.shown += values.values()
        self.addresses += [values[name] for name in ("href", "action", "content") if name in values]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.shown.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", data))


def structure(page: bytes) -> Structure:
    found = Structure()
    found.feed(page.decode())
    found.close()
    return found


def invisible(page: str) -> Iterator[str]:
    return (each for each in page if each not in "\n " and unicodedata.category(each)[0] in "CZ")


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.parametrize("where", PAGES)
def test_a_value_of_others_is_text_and_changes_nothing_around_it(where: str, text: str) -> None:
    page, plain = structure(PAGES[where](text)), structure(PAGES[where]("harmless"))
    assert page.elements == plain.elements
    assert not any(each.lower().lstrip().startswith("javascript:") for each in page.addresses)
    assert not list(invisible(PAGES[where](text).decode()))
    if where != "consent: redirect host":  # a host is a part of the text
        assert any(_written(text, where) in each for each in page.shown)


def _written(text: str, where: str) -> str:
    """Return the text as the page spells it; JSON escapes some of it before."""
    return visible(
        json.dumps(text, ensure_ascii=False) if where == "approval: an argument" else text
    )


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", " javascript:alert(1)", "JavaScript:alert(1)", "java\nscript:alert(1)",
     "data:text/html,x", "//evil.test/", "/oauth/account", "https://[", "https://ann@corp.test/",
     "", "None"],
)  # fmt: skip
def test_a_provider_sends_people_to_an_address_of_the_web_only(url: str) -> None:
    with pytest.raises(PageError, match="is not an https or http URL"):
        pages.provider_link("corp", url)
