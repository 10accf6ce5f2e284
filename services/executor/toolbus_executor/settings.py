"""Settings of the executor service."""

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """Settings of the executor and the settings that all services share.

    Servers come from the configuration. `cgroup` is a directory of control groups version 2 that is
    delegated to the executor; executor creates a control group in it for each process with limits.
    `cosign_key` is the public key that verifies the signatures of container images: a file, or the
    URL of a key service in the form that `cosign verify --key` accepts.
    """

    cgroup: str = ""
    cosign_key: str = ""
