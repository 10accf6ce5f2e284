"""Tests of containers on machines whose container engine cannot run them."""

from typing import Self

import docker
import pytest
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from testcontainers.core import config, container

from harness.engines import containers


class Engine:
    """Docker's client, whose requests for images fail."""

    def __init__(self, error: Exception) -> None:
        self.images = self
        self.closed = False
        self._error = error

    def get(self, _name: str) -> None:
        raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImageNotFound("none"), "no image nats:x"),
        (APIError("500"), "no container engine"),
        (DockerException("broken"), "no container engine"),
        (requests.ReadTimeout("5 s"), "no container engine"),
        (requests.ConnectionError("reset"), "no container engine"),
    ],
)
def test_an_engine_that_fails_is_a_reason_to_leave_tests_out(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(error)
    monkeypatch.delenv(containers.REQUIRED, raising=False)
    monkeypatch.setenv("TOOLBUS_TEST_IMAGE_NATS", "nats:x")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setattr(docker, "from_env", lambda **_: engine)
    assert containers.missing.__wrapped__("nats") == reason  # not the result of an earlier call
    assert engine.closed


def test_a_container_needs_no_image_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Started:
        def __init__(self, _image: str) -> None:
            pass

        def with_exposed_ports(self, _port: int) -> Self:
            return self

        def __enter__(self) -> Self:
            disabled.append(config.testcontainers_config.ryuk_disabled)
            raise DockerException

        def __exit__(self, *_: object) -> None:
            pass

    disabled: list[bool] = []
    monkeypatch.setattr(config.testcontainers_config, "_ryuk_disabled", False)
    monkeypatch.setattr(container, "DockerContainer", Started)
    with pytest.raises(DockerException), containers.valkey_container():
        pass
    assert disabled == [True]
