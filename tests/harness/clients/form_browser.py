"""Minimal browser for the sign-in pages. It supports cookies and forms, but no scripts."""

import http.client
import re
from contextlib import closing
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import parse_qsl, urlencode, urlsplit


@dataclass
class Page:
    """A page, or a redirect."""

    status: int
    headers: list[tuple[str, str]]
    text: str

    @property
    def location(self) -> str:
        """The URL of the redirect; empty if the page is no redirect."""
        return next((value for name, value in self.headers if name.lower() == "location"), "")

    @property
    def ticket(self) -> str:
        """The hidden ticket of the form."""
        found = re.search(r'name="ticket" value="([^"]*)"', self.text)
        assert found is not None, self.text
        return unescape(found[1])

    @property
    def link(self) -> str:
        """The target of the only link."""
        found = re.search(r'<a href="([^"]*)"', self.text)
        assert found is not None, self.text
        return unescape(found[1])

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters of the redirect."""
        return dict(parse_qsl(urlsplit(self.location).query, keep_blank_values=True))


@dataclass
class Browser:
    """A browser with separate cookies."""

    base: str
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, url: str) -> Page:
        """Follow a link."""
        return self._exchange("GET", url, None, {})

    def post(self, path: str, **form: str) -> Page:
        """Send a form to this site."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": self.base,
            "Sec-Fetch-Site": "same-origin",
        }
        return self._exchange("POST", self.base + path, urlencode(form), headers)

    def sign_in(self, page: Page, name: str, password: str, code: str = "") -> Page:
        """Fill in and send the sign-in form."""
        fields = {"name": name, "password": password, "code": code}
        return self.post("/oauth/sign-in", ticket=page.ticket, **fields)

    def answer(self, page: Page, answer: str = "allow") -> Page:
        """Press a button of the consent page."""
        return self.post("/oauth/consent", ticket=page.ticket, answer=answer)

    def _exchange(self, method: str, url: str, body: str | None, headers: dict[str, str]) -> Page:
        target = urlsplit(url)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=90)
        with closing(connection):
            text = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            sent = {**headers, **({"Cookie": text} if text else {})}
            where = f"{target.path}?{target.query}" if target.query else target.path
            connection.request(method, where, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode(errors="surrogateescape")  # a download is bytes
            page = Page(answer.status, answer.getheaders(), text)
        for name, value in page.headers:
            if name.lower() == "set-cookie":
                own, _, rest = value.partition("=")
                self.cookies[own] = rest.partition(";")[0]
        return page
