"""HashiCorp Vault or OpenBao: version 2 of its key-value engine, and its transit engine.

Where it is and who asks is told by its own variables: VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT,
and VAULT_TOKEN, or VAULT_ROLE_ID with VAULT_SECRET_ID, or VAULT_K8S_ROLE.
"""

import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolbus_common.secrets.references import SecretError
from toolbus_common.secrets.stores.optional_imports import library

TIMEOUT = 5
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_UNKNOWN = "Vault has no secret {}, or it was deleted; write mount/path as in `vault kv get`."
_NO_KEY = "Vault has no key {}; write mount/name of the transit engine, as transit/toolbus."


class _Session:
    """Signs in when it is first asked, and again once when it is refused: tokens end."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._client: Any = None
        self._turn = threading.Lock()

    def ask(self, deed: str, unknown: str, question: Callable[[Any], Any]) -> Any:
        """What Vault answers. Raises `SecretError`: `unknown` where it has no such thing."""
        hvac = library("hvac", "vault")
        failed = library("requests", "vault").RequestException
        with self._turn:
            try:
                return self._ask(hvac, question)
            except hvac.exceptions.InvalidPath as error:
                raise SecretError(unknown) from error
            except (hvac.exceptions.VaultError, failed) as error:
                # Their texts may quote what was sent.
                reason = f"Vault did not {deed}: {type(error).__name__}"
                raise SecretError(f"{reason}; see that this service may do so.") from error

    def _ask(self, hvac: Any, question: Callable[[Any], Any]) -> Any:
        if self._client is None:
            self._client = self._signed_in(hvac)
        try:
            return question(self._client)
        except hvac.exceptions.Forbidden:
            self._client = self._signed_in(hvac)
            return question(self._client)

    def _signed_in(self, hvac: Any) -> Any:
        told = self._environ
        if not told.get("VAULT_ADDR"):
            raise SecretError("VAULT_ADDR is not set; set it to Vault's URL for this service.")
        client = hvac.Client(
            told["VAULT_ADDR"],
            token=told.get("VAULT_TOKEN", ""),
            namespace=told.get("VAULT_NAMESPACE"),
            verify=told.get("VAULT_CACERT", True),
            timeout=TIMEOUT,
        )
        if told.get("VAULT_ROLE_ID"):
            client.auth.approle.login(told["VAULT_ROLE_ID"], told.get("VAULT_SECRET_ID"))
        elif told.get("VAULT_K8S_ROLE"):
            client.auth.kubernetes.login(told["VAULT_K8S_ROLE"], Path(ACCOUNT).read_text())
        return client


class HashiCorp:
    """The key-value engine."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._session = _Session(environ)

    def read(self, path: str) -> str:
        """The fields of the newest version at `mount/path`."""
        mount, rest = _parts("vault", path)
        told = self._session.ask(
            f"tell {path}",
            _UNKNOWN.format(path),
            lambda client: client.secrets.kv.v2.read_secret_version(
                rest, mount_point=mount, raise_on_deleted_version=True
            ),
        )
        return json.dumps(told["data"]["data"])


class HashiCorpKeys:
    """The transit engine: keys as `mount/name`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._session = _Session(environ)

    def wrap(self, path: str, key: bytes) -> bytes:
        """The key, with the newest version of the one named."""
        mount, name = _parts("vault-transit", path)
        plaintext = b64encode(key).decode()
        told = self._session.ask(
            f"wrap with the key {path}",
            _NO_KEY.format(path),
            lambda client: client.secrets.transit.encrypt_data(
                name, plaintext=plaintext, mount_point=mount
            ),
        )
        return str(told["data"]["ciphertext"]).encode()

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """The key again, whichever version wrapped it."""
        mount, name = _parts("vault-transit", path)
        ciphertext = wrapped.decode("ascii", "replace")
        told = self._session.ask(
            f"unwrap with the key {path}",
            _NO_KEY.format(path),
            lambda client: client.secrets.transit.decrypt_data(
                name, ciphertext=ciphertext, mount_point=mount
            ),
        )
        return b64decode(told["data"]["plaintext"])


def _parts(store: str, path: str) -> tuple[str, str]:
    """The mount, and what is below it. Raises `SecretError`."""
    mount, _, rest = path.partition("/")
    if not mount or {"", ".", ".."} & set(rest.split("/")):
        raise SecretError(f"{store}:{path} is not of the form mount/path.")
    return mount, rest
