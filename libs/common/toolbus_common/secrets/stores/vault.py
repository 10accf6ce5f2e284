"""HashiCorp Vault or OpenBao: version 2 of the key-value engine, and the transit engine.

Address and credentials come from Vault's environment variables: VAULT_ADDR, VAULT_NAMESPACE,
VAULT_CACERT, and either VAULT_TOKEN, VAULT_ROLE_ID with VAULT_SECRET_ID, or VAULT_K8S_ROLE.
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
    """Session that signs in on first use, and once more if Vault rejects its token."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._client: Any = None
        self._lock = threading.Lock()

    def request(self, operation: str, unknown: str, request: Callable[[Any], Any]) -> Any:
        """Return Vault's response. Raises `SecretError`.

        The message is `unknown` if the path does not exist. Any other message contains the
        operation.
        """
        hvac = library("hvac", "vault")
        failed = library("requests", "vault").RequestException
        with self._lock:
            try:
                return self._ask(hvac, request)
            except hvac.exceptions.InvalidPath as error:
                raise SecretError(unknown) from error
            except (hvac.exceptions.VaultError, failed) as error:
                # Vault's error texts are not used, because they can contain the request.
                reason = f"Vault failed to {operation}: {type(error).__name__}"
                raise SecretError(f"{reason}; check the permissions of this service.") from error

    def _ask(self, hvac: Any, request: Callable[[Any], Any]) -> Any:
        if self._client is None:
            self._client = self._signed_in(hvac)
        try:
            return request(self._client)
        except hvac.exceptions.Forbidden:
            self._client = self._signed_in(hvac)
            return request(self._client)

    def _signed_in(self, hvac: Any) -> Any:
        environ = self._environ
        if not environ.get("VAULT_ADDR"):
            raise SecretError("VAULT_ADDR is not set; set it to Vault's URL for this service.")
        client = hvac.Client(
            environ["VAULT_ADDR"],
            token=environ.get("VAULT_TOKEN", ""),
            namespace=environ.get("VAULT_NAMESPACE"),
            verify=environ.get("VAULT_CACERT", True),
            timeout=TIMEOUT,
        )
        if environ.get("VAULT_ROLE_ID"):
            client.auth.approle.login(environ["VAULT_ROLE_ID"], environ.get("VAULT_SECRET_ID"))
        elif environ.get("VAULT_K8S_ROLE"):
            client.auth.kubernetes.login(environ["VAULT_K8S_ROLE"], Path(ACCOUNT).read_text())
        return client


class HashiCorp:
    """Secret store in Vault's key-value engine."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._session = _Session(environ)

    def read(self, path: str) -> str:
        """Return the fields of the newest version at `mount/path` as JSON. Raises `SecretError`."""
        mount, rest = _parts("vault", path)
        response = self._session.request(
            f"read {path}",
            _UNKNOWN.format(path),
            lambda client: client.secrets.kv.v2.read_secret_version(
                rest, mount_point=mount, raise_on_deleted_version=True
            ),
        )
        return json.dumps(response["data"]["data"])


class HashiCorpKeys:
    """Key service of Vault's transit engine. The path of a key is `mount/name`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._session = _Session(environ)

    def wrap(self, path: str, key: bytes) -> bytes:
        """Return the key, encrypted with the transit key's newest version. Raises `SecretError`."""
        mount, name = _parts("vault-transit", path)
        plaintext = b64encode(key).decode()
        response = self._session.request(
            f"wrap with the key {path}",
            _NO_KEY.format(path),
            lambda client: client.secrets.transit.encrypt_data(
                name, plaintext=plaintext, mount_point=mount
            ),
        )
        return str(response["data"]["ciphertext"]).encode()

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """Return the decrypted key. Any version of the transit key can have wrapped it.

        Raises `SecretError`.
        """
        mount, name = _parts("vault-transit", path)
        ciphertext = wrapped.decode("ascii", "replace")
        response = self._session.request(
            f"unwrap with the key {path}",
            _NO_KEY.format(path),
            lambda client: client.secrets.transit.decrypt_data(
                name, ciphertext=ciphertext, mount_point=mount
            ),
        )
        return b64decode(response["data"]["plaintext"])


def _parts(store: str, path: str) -> tuple[str, str]:
    """Return the mount and the rest of a path. Raises `SecretError`."""
    mount, _, rest = path.partition("/")
    if not mount or {"", ".", ".."} & set(rest.split("/")):
        raise SecretError(f"{store}:{path} is malformed; write {store}:mount/path.")
    return mount, rest
