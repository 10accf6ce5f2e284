"""Settings of the executor service."""

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """Shared settings and the executor's; servers come from the configuration.

    `cgroup` is a directory of version 2 delegated to the executor: processes are limited there.
    `cosign_key` is the public key with which signatures of container images are verified: a file,
    or a URL of a key service, as `cosign verify --key` accepts it.
    """

    cgroup: str = ""
    cosign_key: str = ""
