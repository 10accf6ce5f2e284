"""Chromium with screenshots and accessibility checks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

SHOTS = Path(__file__).resolve().parents[3] / "build" / "screenshots"
PATIENCE = 60_000.0  # timeout of a failed run in milliseconds
VIEWPORT = {"width": 1024, "height": 768}
# Error pages have an error status. Chromium reports it, but it is no error of the page.
_OF_STATUS = "Failed to load resource: the server responded with a status of"


@dataclass
class Person:
    """A person with a separate browser context and separate cookies."""

    page: Page
    axe: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Collect the browser's errors and warnings."""
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._record)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def opens(self, address: str) -> None:
        """Open a URL."""
        self.page.goto(address)

    def fills(self, **fields: str) -> None:
        """Fill in fields. The keywords are the first words of their labels."""
        for label, text in fields.items():
            self.page.get_by_label(label).fill(text)

    def presses(self, label: str) -> None:
        """Click a button."""
        self.page.get_by_role("button", name=label, exact=True).click()

    def sees(self, heading: str) -> Locator:
        """Wait for the page with this heading, and return its main part."""
        self.page.get_by_role("heading", level=1, name=heading, exact=True).wait_for()
        self.page.wait_for_load_state()
        return self.page.locator("main")

    def keeps(self, name: str) -> None:
        """Store a screenshot, and assert that the page has no accessibility or console error."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
        found = self.barriers()
        assert not found, found
        assert self.complaints == []

    def barriers(self) -> list[str]:
        """Return the accessibility violations that axe finds."""
        self.page.evaluate(self.axe)
        found: dict[str, Any] = self.page.evaluate("() => axe.run()")
        return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found["violations"]]

    @property
    def overflows(self) -> bool:
        """Whether the page is wider than the viewport."""
        wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.page.evaluate(wider))

    def _record(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_OF_STATUS):
            self.complaints.append(message.text)


@contextmanager
def person(browser: Browser, axe: str, **about: Any) -> Iterator[Person]:
    """Open a browser context with the options `about`."""
    context = browser.new_context(**{"viewport": VIEWPORT, **about})
    try:
        yield Person(context.new_page(), axe)
    finally:
        context.close()
