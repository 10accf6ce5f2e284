"""A person before a real browser: what they look at is kept as pictures, and judged."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

SHOTS = Path(__file__).resolve().parents[3] / "build" / "screenshots"
PATIENCE = 60_000.0  # milliseconds; a bound for a broken run
DESK = {"width": 1024, "height": 768}
# A refusal is a page as well: that its status is no 200 is no error of the page.
_OF_STATUS = "Failed to load resource: the server responded with a status of"


@dataclass
class Person:
    """Somebody before a browser of their own, with cookies of their own."""

    page: Page
    axe: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen to what the browser complains of."""
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def opens(self, address: str) -> None:
        """Follow a link from elsewhere."""
        self.page.goto(address)

    def fills(self, **fields: str) -> None:
        """Write into fields by what is written above them, its first word."""
        for label, text in fields.items():
            self.page.get_by_label(label).fill(text)

    def presses(self, label: str) -> None:
        """Click a button."""
        self.page.get_by_role("button", name=label, exact=True).click()

    def sees(self, heading: str) -> Locator:
        """Wait for the page of this heading, the whole of it; what is below it."""
        self.page.get_by_role("heading", level=1, name=heading, exact=True).wait_for()
        self.page.wait_for_load_state()
        return self.page.locator("main")

    def keeps(self, name: str) -> None:
        """A picture for people who look later; nothing may be wrong with the page it shows."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
        assert self.barriers() == []
        assert self.complaints == []

    def barriers(self) -> list[str]:
        """What keeps somebody from using the page, as axe finds it."""
        self.page.evaluate(self.axe)
        found: dict[str, Any] = self.page.evaluate("() => axe.run()")
        return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found["violations"]]

    @property
    def overflows(self) -> bool:
        """Whether the page is wider than what shows it."""
        wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.page.evaluate(wider))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_OF_STATUS):
            self.complaints.append(message.text)


@contextmanager
def person(browser: Browser, axe: str, **about: Any) -> Iterator[Person]:
    """Somebody new; `about` is what is special about their browser."""
    context = browser.new_context(**{"viewport": DESK, **about})
    try:
        yield Person(context.new_page(), axe)
    finally:
        context.close()
