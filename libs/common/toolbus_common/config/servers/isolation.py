"""Isolation of a server's process: resources, files and network."""

import re
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError, field_validator

from toolbus_common.config.base import ConfigModel
from toolbus_common.egress import Allowed

_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}")


class Limits(ConfigModel):
    """Resource limits of a process: memory in MiB, open files, processes, CPUs.

    `scratch` is the total size in MiB of its private home, /tmp and /dev/shm. `memory` applies to
    each process. With a control group it also applies to the sum of all processes. `cpu` requires a
    control group. `cpu_seconds` is the maximum CPU time of each process.
    """

    memory: int = Field(default=4096, ge=16, le=1 << 24)
    files: int = Field(default=4096, ge=16, le=1 << 20)
    cpu: float | None = Field(default=None, ge=0.01, le=1024)
    cpu_seconds: int | None = Field(default=None, ge=1, le=1 << 31)
    processes: int = Field(default=512, ge=1, le=1 << 20)
    scratch: int = Field(default=1024, ge=1, le=1 << 20)


class Hosts(ConfigModel):
    """The only hosts that a process may connect to: api.example, *.example:443, 10.1.0.0/16."""

    hosts: tuple[str, ...] = Field(min_length=1, max_length=256)

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for each in hosts:
            if len(Allowed.of(each).items) != 1:
                raise ValueError(f"{each[:80]!r} must be one host; list each separately")
        return hosts


Network = Literal["any", "loopback", "none"] | Hosts
_WORDS = ("any", "loopback", "none")


def network_of(value: Any) -> Network:
    """Return the network setting of a configured value.

    Raises `ValueError`, with the same message for every invalid form.
    """
    if isinstance(value, Hosts) or (isinstance(value, str) and value in _WORDS):
        return cast("Network", value)
    if not isinstance(value, dict) or set(value) != {"hosts"}:
        raise ValueError("must be any, loopback, none, or a list: {hosts: [api.example]}")
    hosts = value["hosts"]
    try:
        return Hosts(hosts=tuple(hosts) if isinstance(hosts, list) else hosts)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


class Container(ConfigModel):
    """A container image. Its name contains the digest, because a tag can change.

    `args` are the arguments of the program. `user` is the uid and the gid of its processes,
    whatever the image says; `0:0` runs them as root.
    """

    image: str = Field(max_length=512)
    args: tuple[str, ...] = ()
    user: Annotated[str, Field(pattern=r"^[0-9]{1,9}:[0-9]{1,9}$")] = "65532:65532"

    @property
    def is_root(self) -> bool:
        """Whether the processes have the uid or the gid 0."""
        return 0 in map(int, self.user.split(":"))

    @field_validator("image")
    @classmethod
    def _has_digest(cls, image: str) -> str:
        if not _IMAGE.fullmatch(image):
            raise ValueError("must end in its digest, as in registry.example/name@sha256:<64 hex>")
        return image


class Files(ConfigModel):
    """The files that a process may access in addition to the system's files.

    `read` lists files to read. `write` lists files to read and write. `~/` means the home directory
    of the executor.
    """

    read: tuple[str, ...] = Field(default=(), max_length=256)
    write: tuple[str, ...] = Field(default=(), max_length=256)

    @field_validator("read", "write")
    @classmethod
    def _are_absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith(("/", "~/")):
                raise ValueError(f"{path[:80]!r} must begin with / or ~/")
        return paths
