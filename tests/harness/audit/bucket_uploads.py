"""Uploads to buckets in tests: targets, credentials and parsed requests."""

import base64
import json

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.network.hostile_http import client
from toolbus_common.config import Export
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.object_storage.bucket import BucketTarget
from toolbus_common.secrets import Secrets, stores_of

S3 = {"access_key": "AKIA", "secret_key": "canary-secret", "session_token": "canary-token"}
AZURE_KEY = base64.b64encode(b"k" * 64).decode()
SIGNER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nETag: x\r\n\r\n"


def export_to(to: str, url: str, credentials: dict[str, str]) -> Export:
    endpoint = url.partition("/path")[0]
    return Export.model_validate({"to": to, "endpoint": endpoint, "credentials": credentials})


def target(export: Export, http: HttpClient | None = None, *, named: bool = False) -> BucketTarget:
    return BucketTarget(export, http or client(), Secrets(stores_of({})), lambda: named)


def service_account() -> str:
    key = SIGNER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    fields = {"type": "service_account", "client_email": "a@b.example", "private_key_id": "k1"}
    return json.dumps({**fields, "private_key": key})


def headers_of(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def credentials_of(kind: str) -> dict[str, str]:
    return {
        "s3": {"access_key": "AKIA", "secret_key": "x"},
        "gs": {"service_account": service_account()},
        "az": {"account_key": AZURE_KEY, "account_name": "acct"},
    }[kind]
