"""AWS Secrets Manager and KMS. Region and credentials come from AWS's environment variables."""

import threading
from collections.abc import Callable
from typing import Any

from toolbus_common.secrets.references import SecretError
from toolbus_common.secrets.stores.optional_imports import library


class _Service:
    """Client of one AWS service. It is created on first use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client: Any = None
        self._lock = threading.Lock()

    def request(self, operation: str, request: Callable[[Any], Any]) -> Any:
        """Send a request to AWS and return the response.

        Raises `SecretError`, whose message contains the operation.
        """
        exceptions = library("botocore.exceptions", "aws")
        try:
            return request(self._made())
        except exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "an error")
            raise SecretError(
                f"AWS failed to {operation}: {code}; check the reference and the permissions."
            ) from error
        except exceptions.BotoCoreError as error:
            reason = f"AWS could not be reached to {operation}: {type(error).__name__}"
            raise SecretError(
                f"{reason}; set AWS_REGION and credentials for this service."
            ) from error

    def _made(self) -> Any:
        with self._lock:
            if self._client is None:
                patience = library("botocore.config", "aws").Config(
                    connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2}
                )
                self._client = library("boto3", "aws").client(self._name, config=patience)
            return self._client


class Amazon:
    """Secret store in AWS Secrets Manager."""

    def __init__(self) -> None:
        self._service = _Service("secretsmanager")

    def read(self, path: str) -> str:
        """Return the newest value of the secret with this name or ARN. Raises `SecretError`."""
        response = self._service.request(
            f"read the secret {path}", lambda client: client.get_secret_value(SecretId=path)
        )
        text: str | None = response.get("SecretString")
        return response["SecretBinary"].decode() if text is None else text


class AmazonKeys:
    """Key service AWS KMS. The path of a key is its id, its ARN or `alias/name`."""

    def __init__(self) -> None:
        self._service = _Service("kms")

    def wrap(self, path: str, key: bytes) -> bytes:
        """Return the key, encrypted with the KMS key at `path`. Raises `SecretError`."""
        response = self._service.request(
            f"wrap with the key {path}", lambda client: client.encrypt(KeyId=path, Plaintext=key)
        )
        return bytes(response["CiphertextBlob"])

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """Return the decrypted key. Raises `SecretError`, also if another KMS key wrapped it."""
        response = self._service.request(
            f"unwrap with the key {path}",
            lambda client: client.decrypt(KeyId=path, CiphertextBlob=wrapped),
        )
        return bytes(response["Plaintext"])
