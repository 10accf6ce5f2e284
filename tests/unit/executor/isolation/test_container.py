"""The command line that starts a server in a container."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from toolbus_common.config import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.isolation.container import container_command, denied_hint
from toolbus_executor.isolation.standard_error import StandardError
from toolbus_executor.settings import Settings

IMAGE = "registry.example/mcp/notes@sha256:" + "0a" * 32


def server(**fields: Any) -> Server:
    return Server(container={"image": IMAGE, "args": ["--verbose"]}, **fields)


def words(declared: Server, **settings: Any) -> list[str]:
    own = Settings(state_dir=Path("/srv/toolbus"), **settings)
    return container_command("notes", declared, own, which=lambda name: f"/usr/bin/{name}")


def test_a_container_has_no_privileges_and_its_limits() -> None:
    result = words(
        server(limits={"memory": 256, "processes": 32, "files": 128, "cpu": 0.5, "cpu_seconds": 9})
    )
    run = result[result.index("run") :]
    assert {
        "--rm", "--interactive", "--init", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--read-only", "--memory=256m", "--memory-swap=256m", "--pids-limit=32",
        "--ulimit=nofile=128", "--cpus=0.5", "--ulimit=cpu=9",
    } <= set(run)  # fmt: skip
    assert run[-2:] == [IMAGE, "--verbose"]
    assert not any(word.startswith(("--volume", "--network", "--privileged")) for word in run)


def test_a_container_does_not_run_as_root_unless_the_configuration_says_so() -> None:
    assert {"--user=65532:65532", "--env=HOME=/tmp"} <= set(words(server()))
    root = Server(container={"image": IMAGE, "user": "0:0"})
    assert "--user=0:0" in words(root)
    assert root.container is not None
    assert root.container.is_root
    for user in ("", "root", "1000", "1000:1000:1", "-1:0"):
        with pytest.raises(ValidationError, match="user"):
            Server(container={"image": IMAGE, "user": user})


async def test_a_denied_file_is_reported_with_the_user() -> None:
    errors = StandardError("notes", None, denied_hint(server()))
    errors.feed(b"touch: /data: Permission denied\n")
    errors.end()
    assert errors.hint == "it runs as 65532:65532: set container.user if it needs another"
    assert denied_hint(Server(command=["notes"])) == ""


@pytest.mark.parametrize("network", ["none", "loopback"])
def test_network_none_disables_the_network(network: str) -> None:
    assert "--network=none" in words(server(network=network))


def test_a_container_mounts_the_declared_files_only() -> None:
    files = {"read": ["/", "/srv/notes"], "write": ["/srv/cache"]}
    volumes = [each for each in words(server(files=files)) if each.startswith("--volume")]
    assert volumes == ["--volume=/srv/notes:/srv/notes:ro", "--volume=/srv/cache:/srv/cache"]


def test_variables_are_passed_by_name_without_values() -> None:
    result = words(server(env={"TOKEN": "hush"}))
    assert result[result.index("--env") + 1] == "TOKEN"
    assert not any("hush" in word for word in result)


def test_an_image_without_its_digest_is_rejected() -> None:
    for image in ("notes", "notes:1.2", "notes@sha256:abc", "--privileged@sha256:" + "0" * 64):
        with pytest.raises(ValidationError, match="must end in its digest"):
            Server(container={"image": image})


def test_a_missing_engine_is_reported_with_what_to_install() -> None:
    with pytest.raises(UpstreamDeadError, match="neither docker nor podman"):
        container_command("notes", server(), Settings(), which=lambda _name: None)


def test_without_cosign_an_image_to_be_verified_does_not_run() -> None:
    def which(name: str) -> str | None:
        return None if name == "cosign" else f"/usr/bin/{name}"

    with pytest.raises(UpstreamDeadError, match="cosign is not installed"):
        container_command("notes", server(), Settings(cosign_key="/etc/cosign.pub"), which=which)
