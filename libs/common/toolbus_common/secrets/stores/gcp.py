"""Google Cloud Secret Manager and KMS, with the machine's default credentials."""

import re
import threading
from collections.abc import Callable
from typing import Any

from toolbus_common.secrets.references import SecretError
from toolbus_common.secrets.stores.optional_imports import library

TIMEOUT = 5.0
_NAME = re.compile(r"projects/[^/]+/secrets/[^/]+(/versions/[^/]+)?")
_KEY = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")


class _Service:
    """Client of one Google Cloud API. It is created at the first request if none is passed."""

    def __init__(self, module: str, kind: str, client: Any) -> None:
        self._module, self._kind = module, kind
        self._client = client
        self._lock = threading.Lock()

    def request(self, operation: str, request: Callable[[Any], Any]) -> Any:
        """Send a request to Google Cloud and return the response.

        Raises `SecretError`, whose message contains the operation.
        """
        call_error = library("google.api_core.exceptions", "gcp").GoogleAPICallError
        auth_error = library("google.auth.exceptions", "gcp").GoogleAuthError
        try:
            return request(self._made())
        except (call_error, auth_error) as error:
            reason = f"Google Cloud failed to {operation}: {type(error).__name__}"
            raise SecretError(f"{reason}; check the permissions of this service.") from error

    def _made(self) -> Any:
        with self._lock:
            if self._client is None:
                made = getattr(library(self._module, "gcp"), self._kind)
                self._client = made(transport="rest")
            return self._client


class Google:
    """Secret store in Google Cloud Secret Manager."""

    def __init__(self, client: Any = None) -> None:
        self._service = _Service("google.cloud.secretmanager", "SecretManagerServiceClient", client)

    def read(self, path: str) -> str:
        """Return the newest version of `projects/P/secrets/S`, or the version at `/versions/V`.

        Raises `SecretError`.
        """
        named = _NAME.fullmatch(path)
        if named is None:
            raise SecretError(f"gcp:{path} is malformed; write gcp:projects/P/secrets/S.")
        name = path if named[1] else f"{path}/versions/latest"
        response = self._service.request(
            f"read the secret {path}",
            lambda client: client.access_secret_version(name=name, timeout=TIMEOUT),
        )
        text: str = response.payload.data.decode()
        return text


class GoogleKeys:
    """Key service Google Cloud KMS.

    The path of a key is `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
    """

    def __init__(self, client: Any = None) -> None:
        self._service = _Service("google.cloud.kms", "KeyManagementServiceClient", client)

    def wrap(self, path: str, key: bytes) -> bytes:
        """Return the key, encrypted with the KMS key's primary version. Raises `SecretError`."""
        _check(path)
        response = self._service.request(
            f"wrap with the key {path}",
            lambda client: client.encrypt(name=path, plaintext=key, timeout=TIMEOUT),
        )
        return bytes(response.ciphertext)

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """Return the decrypted key. Any version of the KMS key can have wrapped it.

        Raises `SecretError`.
        """
        _check(path)
        response = self._service.request(
            f"unwrap with the key {path}",
            lambda client: client.decrypt(name=path, ciphertext=wrapped, timeout=TIMEOUT),
        )
        return bytes(response.plaintext)


def _check(path: str) -> None:
    if not _KEY.fullmatch(path):
        form = "projects/P/locations/L/keyRings/R/cryptoKeys/K"
        raise SecretError(f"gcp-kms:{path} is malformed; write gcp-kms:{form}.")
