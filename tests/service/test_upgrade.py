"""Start with the data of an older version: before accounts, and before the names of ADR 29."""

import json
from pathlib import Path

import pytest
from nats.js.api import KeyValueConfig
from nats.js.errors import APIError

from harness.engines.bus_reset import connect_as_tester
from harness.engines.nats_server import NatsServer
from toolbus_cli.commands.operate import run
from toolbus_cli.errors import CommandError
from toolbus_cli.launcher.engines import move_streams
from toolbus_common.errors import UnknownEntryError
from toolbus_common.nats.accounts import STORE
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.provision import OlderStateError, provision
from toolbus_common.nats.topology import CONFIG, EVENTS, RESULTS

EVENT = "tb.event.call.allowed.acme"


def in_one_account(server: NatsServer) -> str:
    """Configure one account for every user, as before; return the configuration of today."""
    path = server.directory / "nats.conf"
    today = path.read_text()
    configuration = json.loads(today)
    users = configuration.pop("accounts")[STORE]["users"]
    path.write_text(json.dumps(configuration | {"authorization": {"users": users}}))
    return today


async def created_before(bus: Bus) -> None:
    """Create a stream, a bucket and an object store as earlier versions did."""
    stream = bus.client.jetstream()
    await stream.add_stream(name=EVENTS, subjects=["tb.event.>"])
    await stream.publish(EVENT, b"{}")
    bucket = await stream.create_key_value(KeyValueConfig(bucket=CONFIG, history=10))
    await bucket.put("key.bot", b"1")
    await (await stream.create_object_store(RESULTS)).put("result", b"1")


async def test_streams_from_before_accounts_are_kept_and_get_the_rules_of_today(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path / "nats")
    today = in_one_account(server)
    with server.running():
        async with connect_as_tester(server.at) as bus:
            await created_before(bus)
        server.stop()
        (server.directory / "nats.conf").write_text(today)
        move_streams(server.directory / "store")
        move_streams(server.directory / "store")  # which has no effect the second time
        server.start()
        async with connect_as_tester(server.at) as bus:
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


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("FACTS", 'the stream "FACTS" of an older build'),
        ("KV_tb_seals", 'the bucket "tb_seals" of an older build'),
        ("KV_tb_people", 'the bucket "tb_people" of an older build'),
    ],
)
async def test_provisioning_rejects_the_state_of_an_older_build_and_creates_nothing(
    own_nats: NatsServer, name: str, description: str
) -> None:
    async with connect_as_tester(own_nats.at) as bus:
        stream = bus.client.jetstream()
        await stream.add_stream(name=name, subjects=["tb.older.>"])
        with pytest.raises(OlderStateError) as rejected:
            await provision(bus)
        assert description in rejected.value.reason
        for advice in ("empty state directory", "new JetStream domain", "Export the evidence"):
            assert advice in rejected.value.reason
        assert [each.config.name for each in await stream.streams_info()] == [name]


async def test_every_older_stream_is_named_in_one_message(own_nats: NatsServer) -> None:
    async with connect_as_tester(own_nats.at) as bus:
        for name in ("FACTS", "KV_tb_seals"):
            await bus.client.jetstream().add_stream(name=name, subjects=[f"tb.{name}"])
        with pytest.raises(OlderStateError, match='"FACTS" and the bucket "tb_seals"'):
            await provision(bus)


def test_provisioning_an_installation_from_before_identities_can_forget_one(
    own_nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_nats.copy_seeds(tmp_path)
    monkeypatch.setenv("TOOLBUS_NATS_URL", own_nats.url)
    with pytest.raises(UnknownEntryError, match=r"no entry 'audit\.store'; there are: none"):
        run.provision(events_gib=1, forget=["audit.store"], state_dir=tmp_path)


def test_streams_that_cannot_be_moved_end_the_start_with_what_to_do(tmp_path: Path) -> None:
    before = tmp_path / "jetstream" / "$G"
    before.mkdir(parents=True)
    (tmp_path / "jetstream" / STORE).symlink_to(tmp_path / "nowhere" / "else")
    with pytest.raises(CommandError, match="rename the directory"):
        move_streams(tmp_path)
