"""AWS Secrets Manager and KMS, asked as its own tools do: region, role, keys by AWS_*."""

import threading
from collections.abc import Callable
from typing import Any

from toolbus_common.secrets.references import SecretError
from toolbus_common.secrets.stores.optional_imports import library


class _Service:
    """One client of one service, made when it is first asked."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client: Any = None
        self._turn = threading.Lock()

    def ask(self, deed: str, question: Callable[[Any], Any]) -> Any:
        """What the service answers. Raises `SecretError` with the deed that was not done."""
        wrong = library("botocore.exceptions", "aws")
        try:
            return question(self._made())
        except wrong.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "an error")
            raise SecretError(f"AWS did not {deed}: {code}.") from error
        except wrong.BotoCoreError as error:
            reason = f"AWS was not reached to {deed}: {type(error).__name__}"
            raise SecretError(
                f"{reason}; set AWS_REGION and credentials for this service."
            ) from error

    def _made(self) -> Any:
        with self._turn:
            if self._client is None:
                patience = library("botocore.config", "aws").Config(
                    connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2}
                )
                self._client = library("boto3", "aws").client(self._name, config=patience)
            return self._client


class Amazon:
    """Secrets Manager."""

    def __init__(self) -> None:
        self._service = _Service("secretsmanager")

    def read(self, path: str) -> str:
        """The newest value of the secret with that name or ARN."""
        told = self._service.ask(
            f"tell the secret {path}", lambda client: client.get_secret_value(SecretId=path)
        )
        text: str | None = told.get("SecretString")
        return told["SecretBinary"].decode() if text is None else text


class AmazonKeys:
    """KMS: keys by id, ARN or `alias/name`."""

    def __init__(self) -> None:
        self._service = _Service("kms")

    def wrap(self, path: str, key: bytes) -> bytes:
        """The key, for that one of the service alone to open."""
        told = self._service.ask(
            f"wrap with the key {path}", lambda client: client.encrypt(KeyId=path, Plaintext=key)
        )
        return bytes(told["CiphertextBlob"])

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """The key again. One that another key of the service wrapped is refused."""
        told = self._service.ask(
            f"unwrap with the key {path}",
            lambda client: client.decrypt(KeyId=path, CiphertextBlob=wrapped),
        )
        return bytes(told["Plaintext"])
