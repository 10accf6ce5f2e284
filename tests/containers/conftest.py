"""The images are built, and the installation started, once for all tests."""

import os
from collections.abc import Iterator

import pytest

from harness.compose import images
from harness.compose.installation import Installation


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    images.build()


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    from_packages = os.environ.get("TOOLBUS_TEST_FROM_PACKAGES") == "1"
    installed = Installation(tmp_path_factory.mktemp("compose"), from_packages=from_packages)
    with installed.running():
        yield installed
