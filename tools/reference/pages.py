"""The generated pages, each with its title and its generator."""

from collections.abc import Callable
from pathlib import Path

from reference import (
    asyncapi,
    command_line,
    configuration,
    environment,
    errors,
    events,
    log_events,
    metrics,
)
from reference.markdown import with_generated

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = "docs/reference/asyncapi.yaml"  # completely generated, without a hand-written part
PAGES: dict[str, tuple[str, Callable[[], str]]] = {
    "docs/reference/configuration.md": ("Configuration", configuration.generated),
    "docs/reference/cli.md": ("Command line", command_line.generated),
    "docs/reference/environment.md": ("Environment variables", environment.generated),
    "docs/reference/events.md": ("Events and subjects", events.generated),
    "docs/reference/errors.md": ("Errors", errors.generated),
    "docs/reference/metrics.md": ("Metrics", metrics.generated),
    "docs/reference/log-events.md": ("Log events", log_events.generated),
    DOCUMENT: ("AsyncAPI document", asyncapi.generated),
}


def rendered(page: str, before: str) -> str:
    """Return the expected text of a page. Text outside of the generated part is unchanged."""
    title, generate = PAGES[page]
    return generate() if page == DOCUMENT else with_generated(before, title, generate())
