"""Pages and forms of the console, in a browser that is signed in with an admin key."""

import re
from html import unescape

from harness.clients.form_browser import Browser, Page
from harness.gateway.launched_gateway import Launched


def base_of(gateway: Launched) -> str:
    """Return the origin of the gateway."""
    return str(gateway.ready["endpoint"]).removesuffix("/mcp")


def signed_in_with(gateway: Launched, secret: str) -> Browser:
    """Return a browser that is signed in with an admin key."""
    browser = Browser(base_of(gateway))
    answer = browser.post("/console/sign-in", key=secret)
    assert (answer.status, answer.location) == (303, "/console"), answer.text
    return browser


def token_of(page: Page) -> str:
    """Return the hidden token of the forms of a page."""
    found = re.search(r'name="token" value="([^"]*)"', page.text)
    assert found is not None, page.text
    return unescape(found[1])


def shows(browser: Browser, path: str) -> Page:
    """Return a page of the console."""
    return browser.get(f"{browser.base}/console/{path}".rstrip("/"))


def sends(browser: Browser, path: str, **form: str) -> Page:
    """Send a form of the console."""
    return browser.post(f"/console/{path}", token=token_of(shows(browser, "")), **form)
