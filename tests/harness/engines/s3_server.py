"""S3-compatible store in a separate process. It verifies the signature of every request."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3

from harness.engines.engine import Engine

BUCKET = "events"


class Moto(Engine):
    """The moto server. Its objects are lost when it ends."""

    def command(self) -> Sequence[str]:
        """Return the command line of moto's server."""
        return [sys.executable, "-m", "moto.server", "-p", str(self.port)]

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Store:
    """A bucket with the keys of a user that has permission to write to it."""

    url: str
    access_key: str
    secret_key: str
    client: Any

    def objects(self) -> dict[str, bytes]:
        """Return the objects of the bucket by key."""
        listed = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"]: self._read(each["Key"]) for each in listed}

    def _read(self, key: str) -> bytes:
        body = self.client.get_object(Bucket=BUCKET, Key=key)["Body"]
        data: bytes = body.read()
        body.close()
        return data


@contextmanager
def store(directory: Path) -> Iterator[Store]:
    """Run a store with an empty bucket. The store accepts only requests with a valid signature."""
    server = Moto(directory)
    server.start()
    made: list[Any] = []

    def client(kind: str, access: str = "any", secret: str = "any") -> Any:
        made.append(
            boto3.client(
                kind, endpoint_url=server.url, region_name="us-east-1",
                aws_access_key_id=access, aws_secret_access_key=secret,
            )
        )  # fmt: skip
        return made[-1]

    try:
        iam = client("iam")
        iam.create_user(UserName="exporter")
        statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
        iam.put_user_policy(UserName="exporter", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="exporter")["AccessKey"]
        keys = key["AccessKeyId"], key["SecretAccessKey"]
        s3 = client("s3", *keys)
        s3.create_bucket(Bucket=BUCKET)
        _lock(server.url)
        yield Store(server.url, *keys, s3)
    finally:
        for each in made:
            each.close()
        server.kill()


def _lock(url: str) -> None:
    """Enable the checks of signatures and policies for all further requests."""
    plain = {"Content-Type": "text/plain"}
    with urlopen(Request(f"{url}/moto-api/reset-auth", b"0", plain)) as answer:
        assert answer.status == 200
