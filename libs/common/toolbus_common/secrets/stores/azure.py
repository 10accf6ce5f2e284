"""Azure Key Vault secrets and keys, with Azure's default credentials."""

import re
import threading
from collections.abc import Callable
from typing import Any

from toolbus_common.secrets.references import SecretError
from toolbus_common.secrets.stores.optional_imports import library

_PATH = re.compile(r"([A-Za-z0-9-]{3,24})/([A-Za-z0-9-]{1,127})(?:/([0-9a-f]{32}))?")
_KEY = re.compile(r"([A-Za-z0-9-]{3,24})/([A-Za-z0-9-]{1,127})")
_VERSION = re.compile(rb"[0-9a-f]{32}")
_BETWEEN = b"."
_ALGORITHM: Any = "RSA-OAEP-256"
_PATIENCE = {"retry_total": 1, "connection_timeout": 3, "read_timeout": 5}


def _client(vault: str) -> Any:
    secrets = library("azure.keyvault.secrets", "azure")
    return secrets.SecretClient(_url(vault), _credential(), **_PATIENCE)


def _crypto(vault: str, key: str) -> Any:
    made = library("azure.keyvault.keys.crypto", "azure").CryptographyClient
    return made(f"{_url(vault)}/keys/{key}", _credential(), **_PATIENCE)


def _credential() -> Any:
    return library("azure.identity", "azure").DefaultAzureCredential()


def _url(vault: str) -> str:
    return f"https://{vault}.vault.azure.net"


def _ask(operation: str, request: Callable[[], Any]) -> Any:
    """Return Azure's response. Raises `SecretError`; its message contains the operation."""
    failure = library("azure.core.exceptions", "azure").AzureError
    try:
        return request()
    except failure as error:
        reason = f"Azure failed to {operation}: {type(error).__name__}"
        raise SecretError(f"{reason}; check the permissions of this service.") from error


class Azure:
    """Secret store in Azure Key Vault. The client of a vault is created on first use."""

    def __init__(self, client: Callable[[str], Any] = _client) -> None:
        self._client = client
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def read(self, path: str) -> str:
        """Return the secret at `vault/secret`, or one version of it at `vault/secret/version`.

        Raises `SecretError`.
        """
        named = _PATH.fullmatch(path)
        if named is None:
            raise SecretError(f"azure:{path} is malformed; write azure:vault/secret.")

        def call() -> Any:
            return self._of(named[1]).get_secret(named[2], named[3]).value

        value: str | None = _ask(f"read the secret {path}", call)
        return value or ""

    def _of(self, vault: str) -> Any:
        with self._lock:
            return self._clients.setdefault(vault, self._clients.get(vault) or self._client(vault))


class AzureKeys:
    """Key service of RSA keys in Azure Key Vault. The path of a key is `vault/key`.

    A wrapped key starts with the version of the RSA key that wrapped it.
    """

    def __init__(self, client: Callable[[str, str], Any] = _crypto) -> None:
        self._client = client

    def wrap(self, path: str, key: bytes) -> bytes:
        """Return the key, encrypted with the newest version of the RSA key.

        Raises `SecretError`.
        """
        vault, name = _named(path)
        wrapped = self._ask(
            "wrap", path, vault, name, lambda client: client.wrap_key(_ALGORITHM, key)
        )
        version = str(wrapped.key_id).rpartition("/")[2].encode()
        return version + _BETWEEN + bytes(wrapped.encrypted_key)

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """Return the key, decrypted with the version that wrapped it. Raises `SecretError`."""
        vault, name = _named(path)
        version, _, sealed = wrapped.partition(_BETWEEN)
        if not _VERSION.fullmatch(version):
            raise SecretError(
                f"The stored key was not wrapped with azure-key:{path}; set the reference of the "
                "key that wrapped it."
            )
        exact = f"{name}/{version.decode()}"
        response = self._ask(
            "unwrap", path, vault, exact, lambda one: one.unwrap_key(_ALGORITHM, sealed)
        )
        return bytes(response.key)

    def _ask(
        self, verb: str, path: str, vault: str, key: str, request: Callable[[Any], Any]
    ) -> Any:
        def call() -> Any:
            with self._client(vault, key) as client:
                return request(client)

        return _ask(f"{verb} with the key {path}", call)


def _named(path: str) -> tuple[str, str]:
    named = _KEY.fullmatch(path)
    if named is None:
        raise SecretError(f"azure-key:{path} is malformed; write azure-key:vault/key.")
    return named[1], named[2]
