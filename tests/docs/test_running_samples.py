"""The samples that are marked to run are run, page by page, on one gateway."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.gateway.docs_gateway import DocsGateway, Page
from harness.gateway.forked_commands import commands_for_shells
from harness.samples.page_samples import Sample, every_sample

INSTALLED = "README.md"  # page whose commands are the installed program's
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


@pytest.fixture(scope="module")
def forked_programs() -> Iterator[Path]:
    """Yield the directory of a `toolbus` that is forked, because 130 commands would start."""
    with commands_for_shells() as directory:
        yield directory


@pytest.mark.parametrize("page", PAGES)
def test_the_samples_of_a_page_run(
    page: str, gateway: DocsGateway, forked_programs: Path, tmp_path: Path
) -> None:
    shell = Page(gateway, tmp_path, *([] if page == INSTALLED else [forked_programs]))
    try:
        for sample in PAGES[page]:
            shell.check(sample)
    finally:
        shell.close()
