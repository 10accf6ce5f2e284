"""What policy is told by its environment."""

from pathlib import Path

from pydantic import Field, SecretStr

from toolbus_common.nats.sealed_records import Records
from toolbus_common.settings import Settings as CommonSettings

MOST_APPROVAL_SECONDS = 43_200.0  # the bucket forgets whatever is a day old


class Settings(CommonSettings):
    """The shared settings, and where the counters live.

    `reap_grace` is seconds after a call's deadline before a missing outcome is charged as unknown.
    `approval_seconds` is how long a call waits for a person, `approved_seconds` how long the
    approved call may be made; a key has at most `most_pending` waiting. `public_url` is where
    people reach ingress.
    `most_outcomes` of calls with an idempotency key are kept for a key at a time, and about
    `most_outcome_bytes` of them.
    `ledger_quiet` is seconds that calls decided before the counters were lost have to reach the
    stream: more than an event may take to be acknowledged.
    `policy_key` is the file with the key that seals waiting approvals, tasks and kept outcomes, the
    same for every replica: `<state_dir>/policy.key`. `policy_earlier_keys` are files, apart by
    blanks, that open what was sealed before.
    `admin_commands` and `admin_variables` are patterns, apart by blanks: the programs that
    servers declared over HTTP may start, and the variables they and webhooks may name or be given.
    """

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379")
    redis_timeout: float = Field(default=1.0, gt=0)
    reap_grace: float = Field(default=5.0, ge=0)
    approval_seconds: float = Field(default=900.0, gt=0, le=MOST_APPROVAL_SECONDS)
    approved_seconds: float = Field(default=600.0, gt=0, le=MOST_APPROVAL_SECONDS)
    most_pending: int = Field(default=20, ge=1, le=1000)
    most_outcomes: int = Field(default=10_000, ge=1)
    most_outcome_bytes: int = Field(default=64 << 20, ge=1)
    public_url: str = "http://127.0.0.1:8080"
    ledger_quiet: float = Field(default=5.0, gt=0)
    policy_key: Path | None = None
    policy_earlier_keys: str = ""
    admin_commands: str = ""
    admin_variables: str = ""

    def records(self, bucket: str) -> Records:
        """Return what seals the records of a bucket. Raises `ValueError`."""
        earlier = map(Path, self.policy_earlier_keys.split())
        return Records.at(bucket, self.policy_key or self.state_dir / "policy.key", earlier)
