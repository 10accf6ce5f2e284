"""Settings that all services share, from environment variables with the prefix `TOOLBUS_`."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from toolbus_common import listen_address
from toolbus_common.egress import Allowed, Egress
from toolbus_common.listen_address import HostPort
from toolbus_common.tls_files import TlsFiles

# Files in the state directory: the events of the lite form, and the same after the full form has
# moved them into its store.
EVENTS_FILE = "events.db"
MOVED_EVENTS_FILE = "events.moved.db"


class SettingError(Exception):
    """A setting cannot be used. The message names it and contains no secret."""


class Settings(BaseSettings):
    """The settings that all services share. Each service adds further settings in a subclass.

    `nats_url` is the URL of NATS, or several separated with commas: the servers of one cluster.
    `nats_ca` is a file with the authorities that replace those of the system for the certificate of
    NATS; `nats_cert` and `nats_key` are the files of this client's certificate. With one of these
    files, or a URL with `tls://`, connections without TLS are refused.
    `nkey_seed_file` is the file with this service's NATS seed. If it is empty,
    `<state_dir>/nkeys/<service>.seed` is used; without such a file, the service connects without
    credentials. `egress_allow` contains allowed destinations in addition to the public Internet.
    `egress_ca` is a file of CA certificates in addition to those of the system. `people_key` is the
    file with the key that encrypts the keys of persons. It must be the same for every service; the
    default is `<state_dir>/people.key`. `encryption_dir` is the directory of the keys for literal
    secrets in the configuration; the default is `<state_dir>/encryption`. Rejected requests are
    counted, and reported once per `rejection_seconds`. `ops_listen` is HOST:PORT of the process's
    operations listener (health, metrics); port 0 selects a free port. `ops_hosts` are the accepted
    host names of this listener, separated with commas, in addition to IP addresses. After SIGTERM a
    process is not ready, but continues for `drain_delay` seconds, in which load balancers notice
    it. Then calls in progress get up to `drain_seconds`.
    """

    model_config = SettingsConfigDict(env_prefix="TOOLBUS_", frozen=True, extra="ignore")

    state_dir: Path = Path(".toolbus")
    nats_url: str = "nats://127.0.0.1:4222"
    nats_ca: str = ""
    nats_cert: str = ""
    nats_key: str = ""
    nkey_seed_file: str = ""
    ops_listen: str = "127.0.0.1:0"
    ops_hosts: str = ""
    log_level: str = "info"
    log_format: str = "json"  # or text
    drain_delay: float = Field(default=0.0, ge=0)
    drain_seconds: float = 25.0
    spool_bytes: int = 64 * 1024 * 1024
    rejection_seconds: float = Field(default=60.0, gt=0)  # interval of events on rejected requests
    egress_allow: str = ""
    egress_ca: str = ""
    secret_seconds: float = Field(default=300.0, gt=0)  # cache lifetime of secrets
    people_key: Path | None = None
    encryption_dir: Path | None = None

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
        """The address of the operations listener."""
        return listen_address.parsed(self.ops_listen)

    @property
    def ops_names(self) -> frozenset[str]:
        """The host names that the operations listener accepts."""
        names = (name.strip().lower() for name in self.ops_hosts.split(","))
        return frozenset(filter(None, names))

    @property
    def egress(self) -> Egress:
        """The destinations that this service may connect to."""
        return Egress(Allowed.of(self.egress_allow))

    @property
    def nats_tls(self) -> TlsFiles | None:
        """The TLS files of connections to NATS; None without TLS. Raises `TlsFileError`."""
        urls = (url.strip().lower() for url in self.nats_url.split(","))
        files = self.nats_ca or self.nats_cert or self.nats_key
        if not files and not any(url.startswith("tls://") for url in urls):
            return None
        return TlsFiles("TOOLBUS_NATS", self.nats_ca, self.nats_cert, self.nats_key)

    @property
    def people_key_file(self) -> Path:
        """The file of the key that encrypts the keys of persons."""
        return self.people_key or self.state_dir / "people.key"

    @property
    def encryption(self) -> Path:
        """The directory of the keys that encrypt secrets in the configuration."""
        return self.encryption_dir or self.state_dir / "encryption"

    def seed(self, service: str) -> SecretStr | None:
        """Return the service's NATS seed; None if the service has no seed file."""
        path = Path(self.nkey_seed_file or self.state_dir / "nkeys" / f"{service}.seed")
        return SecretStr(path.read_text().strip()) if path.exists() else None
