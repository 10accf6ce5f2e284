"""Screenshots of the console for the documentation: `make screenshots` writes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, sync_playwright

from harness.clients.chromium_browser import PATIENCE
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.packages.debian import CHROMIUM

FOLDER = Path(__file__).parents[2] / "docs" / "how-to" / "images"
ADMIN = "tba_ann_a-secret-for-the-screenshots"
KEYS = {name: f"tbk_{name}_a-secret-for-the-screenshots" for name in ("bot", "crm", "refunds")}
PAGES = {
    "overview": "", "analytics": "analytics/spend-by-key?since=7d",
    "evidence": "audit/evidence", "history": "settings",
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "customers": {"acme": {"budget": {"usd": 500, "per": "month"}}, "globex": {}},
    "teams": {"support": {"customer": "acme"}, "sales": {"customer": "globex"}},
    "prices": {"orders__say": 0.02, "orders__*": 0.005},
    "guards": {"secrets": {"kind": "secrets", "on": ["arguments"], "action": "redact"}},
    "keys": {
        "bot": {"team": "support", "tools": ["*"], "budget": {"usd": 0.7, "per": "day"}},
        "crm": {"team": "sales", "tools": ["*"]},
        "refunds": {"team": "support", "tools": ["*"], "approve": ["orders__say"]},
    },
    "admins": {"ann": {"role": "admin", "secret": ADMIN}},
}


def main() -> None:
    """Run a gateway with some calls, and write one screenshot for each page."""
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as directory, _gateway(Path(directory)) as gateway:
        base = str(gateway.ready["endpoint"]).removesuffix("/mcp")
        approval = _calls(gateway)
        with _browser() as page:
            page.goto(f"{base}/console/sign-in")
            page.get_by_label("Admin key").fill(ADMIN)
            page.get_by_role("button", name="Sign in").click()
            for name, path in PAGES.items():
                page.goto(f"{base}/console/{path}".rstrip("/"))
                page.screenshot(path=FOLDER / f"console-{name}.png")
            page.set_viewport_size({"width": 360, "height": 700})
            page.goto(f"{base}/console/approvals/{approval}")
            page.screenshot(path=FOLDER / "console-approval.png")


@contextmanager
def _gateway(directory: Path) -> Iterator[Launched]:
    (directory / "orders").mkdir()
    orders = Upstream(directory / "orders")
    keys = {name: {**terms, "secret": KEYS[name]} for name, terms in DOCUMENT["keys"].items()}
    document = {**DOCUMENT, "servers": {"orders": {"url": orders.url}}, "keys": keys}
    with orders.running(), Launched(directory).running(document) as launched:
        launched.until_listed(launched.client(KEYS["bot"]), "orders__say")
        yield launched


def _calls(gateway: Launched) -> str:
    """Make calls of several keys, and return the id of one that waits for approval."""
    for number in range(30):
        key = KEYS["crm" if number % 4 == 0 else "bot"]
        gateway.client(key).call("orders__say", {"text": f"order {number}"})
    gateway.client(KEYS["bot"]).call("orders__cancel", {})
    waiting = gateway.client(KEYS["refunds"]).call(
        "orders__say", {"text": "refund 400 dollars", "order": 1182}
    )
    gateway.eventual_rows("SELECT customer FROM checkpoints", lambda rows: len(rows) > 1)
    gateway.eventual_rows("SELECT key FROM calls_by_hour WHERE key = 'refunds'", bool)
    return str(waiting.error["data"]["page"]).rpartition("/")[2]


@contextmanager
def _browser() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM.path(), args=["--disable-dev-shm-usage"], timeout=PATIENCE
        )
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


if __name__ == "__main__":
    main()
