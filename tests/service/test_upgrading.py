"""A state directory from before accounts: what the bus kept is there, under the rules of today."""

import json
from pathlib import Path

import pytest
from nats.js.api import KeyValueConfig
from nats.js.errors import APIError

from harness.engines import NatsServer
from harness.fresh import joined_by_tester
from toolbus_cli.errors import CommandError
from toolbus_cli.launcher.engines import move_streams
from toolbus_common.nats.accounts import STORE
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, EVENTS, RESULTS, provision

EVENT = "tb.event.call.allowed.acme"


def in_one_account(server: NatsServer) -> str:
    """Have a server know one account for everybody, as before; its configuration of today."""
    path = server.directory / "nats.conf"
    today = path.read_text()
    configuration = json.loads(today)
    users = configuration.pop("accounts")[STORE]["users"]
    path.write_text(json.dumps(configuration | {"authorization": {"users": users}}))
    return today


async def laid_down_before(bus: Bus) -> None:
    """Lay down a stream, a bucket and an object store as versions before this one did."""
    stream = bus.client.jetstream()
    await stream.add_stream(name=EVENTS, subjects=["tb.event.>"])
    await stream.publish(EVENT, b"{}")
    bucket = await stream.create_key_value(KeyValueConfig(bucket=CONFIG, history=10))
    await bucket.put("key.bot", b"1")
    await (await stream.create_object_store(RESULTS)).put("result", b"1")


async def test_what_was_kept_before_accounts_is_there_and_obeys_the_rules_of_today(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path / "nats")
    today = in_one_account(server)
    with server.running():
        async with joined_by_tester(server.at) as bus:
            await laid_down_before(bus)
        server.stop()
        (server.directory / "nats.conf").write_text(today)
        move_streams(server.directory / "store")
        move_streams(server.directory / "store")  # which is done once
        server.start()
        async with joined_by_tester(server.at) as bus:
            await provision(bus)
            await provision(bus)
            stream = bus.client.jetstream()
            assert (await stream.get_last_msg(EVENTS, EVENT)).seq == 1
            found = await (await bus.bucket(CONFIG)).get("key.bot")
            assert found is not None
            assert found.value == b"1"
            config = (await stream.stream_info(f"KV_{CONFIG}")).config
            assert config.republish is not None
            assert config.republish.dest == f"tb.kv.{CONFIG}.>"
            assert (config.max_msgs_per_subject, config.deny_purge) == (10, True)
            for subject in (f"$KV.{CONFIG}.key.bot", f"$O.{RESULTS}.M.x"):
                with pytest.raises(APIError):
                    await stream.publish(subject, b"", headers={"Nats-Rollup": "all"})


def test_streams_that_cannot_be_moved_end_the_start_with_what_to_do(tmp_path: Path) -> None:
    before = tmp_path / "jetstream" / "$G"
    before.mkdir(parents=True)
    (tmp_path / "jetstream" / STORE).symlink_to(tmp_path / "nowhere" / "else")
    with pytest.raises(CommandError, match="rename it"):
        move_streams(tmp_path)
