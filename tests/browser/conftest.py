"""Gateway, upstreams and browsers of the browser tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, sync_playwright

from harness.clients import chromium_browser
from harness.clients.chromium_browser import Person
from harness.gateway.browser_gateway import ROOT, Gateway, account, configuration
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.oauth import openid_provider
from harness.oauth.native_app import Program
from harness.oauth.openid_process import Provider
from harness.oauth.protected_processes import OAuthServer, ProtectedServer
from harness.packages import npm
from harness.packages.debian import CHROMIUM

AXE = "axe-core@4.14.1"


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run Toolbus with two servers and a company's OpenID provider, each as a process."""
    far = OAuthServer(tmp_path_factory.mktemp("far"))
    docs = ProtectedServer(tmp_path_factory.mktemp("docs"), far.issuer, "read")
    echo, corp = (
        Upstream(tmp_path_factory.mktemp("echo")),
        Provider(tmp_path_factory.mktemp("corp")),
    )
    environment = {
        "TOOLBUS_EGRESS_ALLOW": "127.0.0.0/8",
        "CORP_SECRET": openid_provider.SECRET,
    }
    launched = Launched(tmp_path_factory.mktemp("gateway"), **environment)
    launched.configure(configuration(echo.url, docs.url, corp.url))
    with ExitStack() as final:
        for each in (far, docs, echo, corp):
            each.start()
            final.callback(each.kill)
        corp.say(asks=True)
        final.callback(launched.stop)
        launched.start()
        launched.until_listed(launched.client(ROOT), "echo__say", "docs__connect_account")
        account(launched, "bob")
        result = account(launched, "ann", "--totp")
        yield Gateway(launched, result.rpartition(": ")[2].strip())


@pytest.fixture(scope="session")
def axe(pytestconfig: pytest.Config) -> str:
    """Return the script of the accessibility checker axe."""
    assert pytestconfig.cache is not None
    return npm.installed(AXE, "axe.min.js", pytestconfig.cache.mkdir("node")).read_text()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run the system's Chromium."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=CHROMIUM.path(),
            args=["--disable-dev-shm-usage"],  # containers have a small /dev/shm
            timeout=chromium_browser.PATIENCE,
        )
        yield made
        made.close()


@pytest.fixture
def someone(browser: Browser, axe: str) -> Iterator[Callable[..., Person]]:
    """Return a factory of people, each with their own browser context."""
    with ExitStack() as final:
        yield lambda **about: final.enter_context(chromium_browser.person(browser, axe, **about))


@pytest.fixture
def program(gateway: Gateway) -> Iterator[Program]:
    """Run an OAuth client on the person's machine."""
    with Program(gateway.base, "Acme Desktop").listening() as made:
        yield made
