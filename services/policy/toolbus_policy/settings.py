"""What policy is told by its environment."""

from pydantic import Field, SecretStr

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """The shared settings, and where the counters live.

    `reap_grace` is seconds after a call's deadline before a missing outcome is charged as unknown.
    `ledger_quiet` is seconds that calls decided before the counters were lost have to reach the
    stream: more than a fact may take to be acknowledged.
    """

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379")
    redis_timeout: float = Field(default=1.0, gt=0)
    reap_grace: float = Field(default=5.0, ge=0)
    ledger_quiet: float = Field(default=5.0, gt=0)
