"""What executor is told by its environment."""

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """The shared settings; servers come from the declared configuration.

    `cgroup` is a directory of version 2 delegated to the executor: processes are limited there.
    """

    cgroup: str = ""
