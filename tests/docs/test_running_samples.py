"""The samples that are marked to run are run, page by page, on one gateway."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.gateway.docs_gateway import DocsGateway, Page
from harness.samples.page_samples import Sample, every_sample

PAGES: dict[str, list[Sample]] = {}
for each in every_sample():
    if each.runs:
        PAGES.setdefault(each.page, []).append(each)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocsGateway]:
    """Yield a gateway with the demo's servers."""
    made = DocsGateway(tmp_path_factory.mktemp("docs"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("page", PAGES)
def test_the_samples_of_a_page_run(page: str, gateway: DocsGateway, tmp_path: Path) -> None:
    shell = Page(gateway, tmp_path)
    try:
        for sample in PAGES[page]:
            shell.check(sample)
    finally:
        shell.close()
