"""What a server's process may use up and touch."""

from typing import Literal

from pydantic import Field, field_validator

from toolbus_common.declared.basics import Declared

Network = Literal["any", "loopback", "none"]


class Limits(Declared):
    """The most a process may use: MiB of memory, open files; how many may be started; processors.

    Memory is each process's, and of all together where there is a control group. `cpu` needs one.
    """

    memory: int = Field(default=4096, ge=16, le=1 << 24)
    files: int = Field(default=4096, ge=16, le=1 << 20)
    cpu: float | None = Field(default=None, ge=0.01, le=1024)
    processes: int = Field(default=512, ge=1, le=1 << 20)


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
