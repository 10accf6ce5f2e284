"""What executor is told by its environment."""

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """The shared settings; servers come from the declared configuration.

    `cgroup` is a directory of version 2 delegated to the executor: processes are limited there.
    `cosign_key` is what images of servers in containers must be signed with: a file, or a URL of
    a key service, as `cosign verify --key` takes it.
    """

    cgroup: str = ""
    cosign_key: str = ""
