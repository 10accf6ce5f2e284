"""What a process is told by its environment, prefix `TOOLBUS_`: read once, then passed on."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from toolbus_common import listen_address
from toolbus_common.egress import Allowed, Egress
from toolbus_common.listen_address import HostPort


class Settings(BaseSettings):
    """The settings every service shares. Services add theirs in a subclass.

    `nkey_seed_file` names the file with this service's NATS seed; when it is empty,
    `<state_dir>/nkeys/<service>.seed` is used if it exists, else the bus is joined without one.
    `egress_allow` lists what may be called beside the open Internet, `egress_ca`
    is a file of authorities trusted beside the system's. `people_key` is the file with the key
    under which people's keys are kept, the same for every service: `<state_dir>/people.key`.
    `sealing_dir` holds the keys of literal secrets in the declaration: `<state_dir>/sealing`.
    Requests rejected for their credentials are told once in `rejection_seconds`, counted.
    `ops_listen` is HOST:PORT of the process's operations listener (health, metrics), port 0 for any
    free one; `ops_hosts` are names it may be asked by, comma-separated, beside addresses.
    """

    model_config = SettingsConfigDict(env_prefix="TOOLBUS_", frozen=True, extra="ignore")

    state_dir: Path = Path(".toolbus")
    nats_url: str = "nats://127.0.0.1:4222"
    nkey_seed_file: str = ""
    ops_listen: str = "127.0.0.1:0"
    ops_hosts: str = ""
    log_level: str = "info"
    log_form: str = Field(  # json or text
        default="json", validation_alias=AliasChoices("TOOLBUS_LOG_FORMAT", "TOOLBUS_LOG_FORM")
    )
    drain_seconds: float = 25.0
    spool_bytes: int = 64 * 1024 * 1024
    rejection_seconds: float = Field(default=60.0, gt=0)  # one event about rejected requests
    egress_allow: str = ""
    egress_ca: str = ""
    secret_seconds: float = Field(default=300.0, gt=0)  # what was read is believed so long
    people_key: Path | None = None
    sealing_dir: Path | None = None

    @field_validator("egress_allow")
    @classmethod
    def _is_listing(cls, text: str) -> str:
        Allowed.of(text)
        return text

    @field_validator("ops_listen")
    @classmethod
    def _is_address(cls, text: str) -> str:
        return str(listen_address.parsed(text or "127.0.0.1:0"))

    @property
    def ops_address(self) -> HostPort:
        """Where the operations listener listens."""
        return listen_address.parsed(self.ops_listen)

    @property
    def ops_names(self) -> frozenset[str]:
        """The names by which the operations listener may be asked."""
        names = (name.strip().lower() for name in self.ops_hosts.split(","))
        return frozenset(filter(None, names))

    @property
    def egress(self) -> Egress:
        """What this service may call."""
        return Egress(Allowed.of(self.egress_allow))

    @property
    def people_key_file(self) -> Path:
        """Where the key is under which people's keys are kept."""
        return self.people_key or self.state_dir / "people.key"

    @property
    def sealing(self) -> Path:
        """Where the keys are with which secrets in the declaration are sealed and opened."""
        return self.sealing_dir or self.state_dir / "sealing"

    def seed(self, service: str) -> SecretStr | None:
        """Read the service's NATS seed; None where none is laid down."""
        path = Path(self.nkey_seed_file or self.state_dir / "nkeys" / f"{service}.seed")
        return SecretStr(path.read_text().strip()) if path.exists() else None
