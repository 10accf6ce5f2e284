"""Files in a container of Azurite, which verifies signatures; left out without its program."""

import os
from pathlib import Path

import pytest

from harness.engines.azurite import ACCOUNT, ACCOUNT_KEY, PROGRAM, Azurite
from harness.network.hostile_http import client
from toolbus_common.config import Export
from toolbus_common.object_storage.bucket import BucketTarget
from toolbus_common.object_storage.errors import TargetError
from toolbus_common.secrets import Secrets, stores_of

PATH = "customer=a%2Eb/a b/c=d/é.txt"
ENCODED = "lake/a/customer%3Da%252Eb/a%20b/c%3Dd/%C3%A9.txt"
pytestmark = pytest.mark.skipif(PROGRAM not in os.environ, reason=f"{PROGRAM} is not set")


def target(to: str, endpoint: str, account_key: str = ACCOUNT_KEY) -> BucketTarget:
    fields = {"to": to, "endpoint": endpoint, "credentials": {"account_key": account_key}}
    export = Export.model_validate(fields)
    return BucketTarget(export, client(), Secrets(stores_of({})), lambda: False)


async def test_files_go_to_a_container_that_checks_signatures(tmp_path: Path) -> None:
    with Azurite(tmp_path).running() as azurite:
        endpoint = f"http://{ACCOUNT}.blob.localhost:{azurite.port}"
        with pytest.raises(TargetError, match=r"status 404 \(ContainerNotFound\)"):
            await target("az://lake/a", endpoint).put(PATH, b"1")
        azurite.create_container("lake")
        for data in (b"1", b"2" * (6 << 20)):
            await target("az://lake/a", endpoint).put(PATH, data)
            assert azurite.read(ENCODED) == data
        with pytest.raises(TargetError, match=r"status 403 \(AuthorizationFailure\)"):
            await target("az://lake", endpoint, "AAAA").put("x", b"x")
