"""Settings of the policy service, read from its environment."""

from pathlib import Path

from pydantic import Field, SecretStr

from toolbus_common.nats.sealed_records import Records
from toolbus_common.settings import Settings as CommonSettings

MAX_APPROVAL_SECONDS = 43_200.0  # entries of the bucket expire after a day


class Settings(CommonSettings):
    """Shared settings, plus the ledger, approvals, idempotency and administration.

    `outcome_grace` is in seconds. A call without an outcome this long after its deadline is charged
    as unknown. A call waits `approval_seconds` for a decision, and an approved call can be made for
    `approved_seconds`. `max_pending_approvals` is a limit for each key. `public_url` is the URL at
    which people reach ingress. A key stores at most `max_outcomes` outcomes of calls with an
    idempotency key, and about `max_outcome_bytes` bytes of these outcomes.

    A rebuild waits `ledger_quiet` seconds, so that the intents of calls admitted before the
    counters were lost reach the stream. `ledger_quiet` must exceed the time to acknowledge an
    event.

    `policy_key` is the file with the key that encrypts pending approvals, tasks and stored
    outcomes, the same for every replica; the default is `<state_dir>/policy.key`.
    `policy_earlier_keys` are files, separated by spaces, with earlier keys that still decrypt
    records.

    `admin_commands` and `admin_variables` are patterns, separated by spaces. Servers that are
    configured over HTTP may start only programs that match `admin_commands`. These servers and
    webhooks may use only variables that match `admin_variables`.
    """

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379")
    redis_timeout: float = Field(default=1.0, gt=0)
    outcome_grace: float = Field(default=5.0, ge=0)
    approval_seconds: float = Field(default=900.0, gt=0, le=MAX_APPROVAL_SECONDS)
    approved_seconds: float = Field(default=600.0, gt=0, le=MAX_APPROVAL_SECONDS)
    max_pending_approvals: int = Field(default=20, ge=1, le=1000)
    max_outcomes: int = Field(default=10_000, ge=1)
    max_outcome_bytes: int = Field(default=64 << 20, ge=1)
    public_url: str = "http://127.0.0.1:8080"
    ledger_quiet: float = Field(default=5.0, gt=0)
    policy_key: Path | None = None
    policy_earlier_keys: str = ""
    admin_commands: str = ""
    admin_variables: str = ""

    def records(self, bucket: str) -> Records:
        """Return the encryption of a bucket's records. Raises `ValueError`."""
        earlier = map(Path, self.policy_earlier_keys.split())
        return Records.at(bucket, self.policy_key or self.state_dir / "policy.key", earlier)
