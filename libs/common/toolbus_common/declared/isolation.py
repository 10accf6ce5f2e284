"""What a server's process may use up and touch."""

import re
from typing import Literal

from pydantic import Field, field_validator

from toolbus_common.declared.basics import Declared

Network = Literal["any", "loopback", "none"]
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}")


class Limits(Declared):
    """The most a process may use: MiB of memory, open files; how many may be started; processors.

    Memory is each process's, and of all together where there is a control group. `cpu` needs one.
    """

    memory: int = Field(default=4096, ge=16, le=1 << 24)
    files: int = Field(default=4096, ge=16, le=1 << 20)
    cpu: float | None = Field(default=None, ge=0.01, le=1024)
    processes: int = Field(default=512, ge=1, le=1 << 20)


class Container(Declared):
    """An image, named with its digest: a tag comes to mean another one. `args` go to it."""

    image: str = Field(max_length=512)
    args: tuple[str, ...] = ()

    @field_validator("image")
    @classmethod
    def _has_digest(cls, image: str) -> str:
        if not _IMAGE.fullmatch(image):
            raise ValueError("must end in its digest, as in registry.example/name@sha256:<64 hex>")
        return image


class Files(Declared):
    """The files a process may read, and those it may change too; `~/` is the executor's home."""

    read: tuple[str, ...] = Field(default=("/",), max_length=256)
    write: tuple[str, ...] = Field(default=(), max_length=256)

    @field_validator("read", "write")
    @classmethod
    def _are_absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith(("/", "~/")):
                raise ValueError(f"{path[:80]!r} must begin with / or ~/")
        return paths
