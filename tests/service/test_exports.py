"""Exports of the real table: each event in exactly one file, after every kill, at every target."""

import io
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from harness.audit.events import allowed, bus_of
from harness.audit.exports import Table, at_work, exporting, files, lines, manifests, once, opened
from harness.audit.ocsf import faults
from harness.engines.s3_server import Store, store
from harness.services.sinks import AT_LOOPBACK
from harness.waits import until
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.delivery.cursor import Cursor, OvertakenError
from toolbus_audit.export import scheduler as schedule
from toolbus_audit.export import windows
from toolbus_audit.export.targets import DirectoryTarget, Target, target_for
from toolbus_common.config import Export
from toolbus_common.egress import Egress
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import EXPORTS
from toolbus_common.object_storage.errors import TargetError
from toolbus_common.secrets import Secrets, stores_of
from toolbus_common.settings import Settings

EIGHT, NINE = 1_763_712_000.5, 1_763_715_600.5  # on the 21st of November 2025


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with opened(tmp_path_factory.mktemp("audit")) as store:
        yield store


@pytest.fixture
def table(engine: ClickHouse) -> Table:
    return Table(engine)


@pytest.fixture
async def bucket(settings: Settings) -> AsyncIterator[Bucket]:
    async with bus_of("audit", settings) as bus:
        yield await bus.bucket(EXPORTS)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    directory = tmp_path / "lake"
    directory.mkdir()
    return directory


def declared(lake: Path, **given: Any) -> Export:
    return Export.model_validate({"to": str(lake), **given})


def named() -> bool:
    return True


async def test_each_event_is_in_one_file_of_its_hour_and_customer(
    table: Table, bucket: Bucket, lake: Path
) -> None:
    await table.keep_intents(1, 2, at=EIGHT)
    await table.keep_intents(3, at=NINE)
    await table.keep_intents(4, at=EIGHT, customer="bolt")
    await once(exporting(table, declared(lake), bucket, DirectoryTarget(lake, named)))
    found = files(lake)
    (manifest,) = manifests(found)
    assert [file["path"].rpartition("/")[0] for file in manifest["files"]] == [
        "date=2025-11-21/hour=08/customer=acme",
        "date=2025-11-21/hour=08/customer=bolt",
        "date=2025-11-21/hour=09/customer=acme",
    ]
    assert [file["rows"] for file in manifest["files"]] == [2, 1, 1]
    assert (manifest["rows"], manifest["after"], manifest["until"]) == (4, 0, 4)
    for file in manifest["files"]:
        data = found[file["path"]]
        assert (len(data), sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    assert sorted(each["id"] for each in lines(found)) == sorted(table.ids)
    assert len(found) == 4


async def test_a_late_event_goes_into_the_next_file_of_its_hour(
    table: Table, bucket: Bucket, lake: Path
) -> None:
    export_ = exporting(table, declared(lake), bucket, DirectoryTarget(lake, named))
    await table.keep_intents(1, at=EIGHT)
    await once(export_)
    before = files(lake)
    await table.keep_intents(2, at=NINE)
    await table.keep_intents(3, at=EIGHT)
    await once(exporting(table, declared(lake), bucket, DirectoryTarget(lake, named)))
    found = files(lake)
    assert before.items() <= found.items(), "earlier files are unchanged"
    assert [each["id"] for each in lines(found)] == ["c1.allowed", "c3.allowed", "c2.allowed"]
    assert [each["until"] for each in manifests(found)] == [1, 3]


class Killing:
    """A target that is killed at some file, after or before writing it."""

    def __init__(self, target: Target, after: int) -> None:
        self._target = target
        self._remaining = after

    async def put(self, path: str, data: bytes) -> None:
        if self._remaining == 0:
            raise KeyboardInterrupt
        self._remaining -= 1
        await self._target.put(path, data)


@pytest.mark.parametrize("after", range(4))
async def test_a_kill_at_any_file_leaves_no_gap_and_no_duplicate(
    table: Table, bucket: Bucket, lake: Path, after: int
) -> None:
    await table.keep_intents(1, 2, at=EIGHT)
    await table.keep_intents(3, at=NINE)
    directory = DirectoryTarget(lake, named)
    killed = exporting(table, declared(lake), bucket, directory, "killed")
    killed._target = Killing(directory, after)
    if after < 3:
        with pytest.raises(KeyboardInterrupt):
            await _without_leaving(killed)
    else:
        await _killed_before_it_says_that_it_is_done(killed)
    await table.keep_intents(4, at=NINE)
    await once(exporting(table, declared(lake), bucket, directory))
    found = files(lake)
    assert sorted(each["id"] for each in lines(found)) == sorted(table.ids)
    assert [(each["after"], each["until"]) for each in manifests(found)] == [(0, 3), (3, 4)]
    named_files = {file["path"] for each in manifests(found) for file in each["files"]}
    assert {path for path in found if not path.startswith("_manifests/")} == named_files


async def _without_leaving(killed: Any) -> None:
    """Run an export as a kill -9 would end it: it still holds its lease."""
    cursor: Cursor = killed._cursor
    await cursor._acquire()
    await killed.start()
    await killed.export_closed()


async def _killed_before_it_says_that_it_is_done(killed: Any) -> None:
    cursor: Cursor = killed._cursor
    await cursor._acquire()
    await killed.start()
    cursor.state.until = 3
    await cursor.save()
    window = windows.Window(cursor.state.stream, 0, 3)
    await windows.write_window(killed._store, "lake", killed._export, window, killed._target)


async def test_a_new_stream_is_exported_from_its_start_after_the_rest_of_the_old(
    table: Table, bucket: Bucket, lake: Path
) -> None:
    directory = DirectoryTarget(lake, named)
    await table.keep_intents(1)
    await once(exporting(table, declared(lake), bucket, directory))
    await table.keep_intents(2)
    table.stream, table.closed = Table(table.store).stream, 0
    await table.keep_intents(3)
    await once(exporting(table, declared(lake), bucket, directory))
    assert sorted(each["id"] for each in lines(files(lake))) == sorted(table.ids)


async def test_large_windows_are_split_into_several_windows_and_files(
    table: Table, bucket: Bucket, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "MAX_MESSAGES", 3)
    monkeypatch.setattr(windows, "MAX_ROWS", 2)
    await table.keep_intents(*range(7), at=EIGHT)
    await once(exporting(table, declared(lake), bucket, DirectoryTarget(lake, named)))
    found = files(lake)
    assert [[file["rows"] for file in each["files"]] for each in manifests(found)] == [
        [2, 1], [2, 1], [1]
    ]  # fmt: skip
    assert sorted(each["id"] for each in lines(found)) == sorted(table.ids)


async def test_an_export_contains_only_the_selected_events(
    table: Table, bucket: Bucket, lake: Path
) -> None:
    await table.keep_intents(1)
    await table.keep_intents(2, customer="bolt")
    await table.keep_intents(3, customer="it's")
    wants = {"customers": ["bolt"], "events": ["call.all*", "key.*"]}
    await once(exporting(table, declared(lake, **wants), bucket, DirectoryTarget(lake, named)))
    assert [each["id"] for each in lines(files(lake))] == ["c2.allowed"]


async def test_events_are_written_in_the_ocsf_schema(
    table: Table, bucket: Bucket, lake: Path
) -> None:
    await table.keep_intents(1, 2)
    export = declared(lake, format="ocsf")
    await once(exporting(table, export, bucket, DirectoryTarget(lake, named)))
    events = lines(files(lake), ".ocsf.jsonl.gz")
    assert [faults(each) for each in events] == [[], []]
    assert [each["metadata"]["uid"] for each in events] == table.ids


async def test_parquet_has_the_tables_columns(table: Table, bucket: Bucket, lake: Path) -> None:
    await table.keep(*(allowed(call_id=f"c{each}", at=EIGHT) for each in range(3)))
    export = declared(lake, format="parquet")
    await once(exporting(table, export, bucket, DirectoryTarget(lake, named)))
    (path,) = (name for name in files(lake) if name.endswith(".parquet"))
    rows = parquet.read_table(lake / path, partitioning=None)
    assert rows.column("id").to_pylist() == table.ids
    assert rows.column("charge").to_pylist() == [2000] * 3
    assert rows.column("at").to_pylist()[0].timestamp() == EIGHT


async def test_a_missing_directory_is_not_created(table: Table, lake: Path) -> None:
    await table.keep_intents(1)
    with pytest.raises(TargetError, match="is not writable"):
        await DirectoryTarget(lake / "not-mounted", named).put("a/b", b"x")
    assert not (lake / "not-mounted").exists()


async def test_an_unconfirmed_directory_is_not_written_to(lake: Path) -> None:
    with pytest.raises(TargetError, match="toolbus apply"):
        await DirectoryTarget(lake, lambda: False).put("a", b"x")
    assert files(lake) == {}


async def test_an_export_is_retried_and_the_status_names_the_reason(
    table: Table, bucket: Bucket, lake: Path
) -> None:
    await table.keep_intents(1)
    gone = lake / "later"
    export_ = exporting(table, declared(gone, every="1s"), bucket, DirectoryTarget(gone, named))
    async with at_work(export_):
        await until(lambda: "is not writable" in str(export_.state), "the reason")
        gone.mkdir()
        await until(lambda: len(lines(files(gone))) == 1, "the event")
        await until(lambda: str(export_.state) == "1 written", "the success")


async def test_only_one_of_two_audits_exports(table: Table, bucket: Bucket, lake: Path) -> None:
    await table.keep_intents(1)
    first = exporting(table, declared(lake), bucket, DirectoryTarget(lake, named), "first")
    await first._cursor._acquire()
    second = Cursor(bucket, "export.lake", "second", 0.5)
    await second._acquire()  # the first has been silent for as long
    with pytest.raises(OvertakenError):
        await first._cursor.save()


# -- a bucket --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with store(tmp_path_factory.mktemp("s3")) as s3_store:
        yield s3_store


def in_bucket(s3: Store, **given: Any) -> Export:
    keys = {"access_key": s3.access_key, "secret_key": "${env:SECRET}"}
    fields = {"to": "s3://events/lake", "endpoint": s3.url}
    return Export.model_validate({**fields, "credentials": keys, **given})


def secrets(key: str) -> Secrets:
    return Secrets(stores_of({"SECRET": key}))


def target(s3: Store, export: Export, secret: str = "") -> Target:
    client = HttpClient(CheckedResolver(AT_LOOPBACK, tls_to_public=True))
    return target_for(export, client, secrets(secret or s3.secret_key), lambda: False)


async def test_files_go_to_a_store_that_checks_signatures(
    table: Table, bucket: Bucket, s3: Store
) -> None:
    await table.keep_intents(1, 2, at=EIGHT)
    export = in_bucket(s3, format="parquet")
    await once(exporting(table, export, bucket, target(s3, export)))
    found = {path.removeprefix("lake/"): data for path, data in s3.objects().items()}
    (manifest,) = manifests(found)
    (file,) = manifest["files"]
    assert sha256(found[file["path"]]).hexdigest() == file["sha256"]
    rows = parquet.read_table(io.BytesIO(found[file["path"]]))
    assert rows.column("id").to_pylist() == table.ids


async def test_a_store_rejects_a_wrong_secret(s3: Store) -> None:
    with pytest.raises(TargetError, match=r"it returned status 403 \(SignatureDoesNotMatch\)"):
        await target(s3, in_bucket(s3), "another secret").put("a b/c=d/é.txt", b"x")
    assert "lake/a b/c=d/é.txt" not in s3.objects()
    await target(s3, in_bucket(s3)).put("a b/c=d/é.txt", b"x")
    assert s3.objects()["lake/a b/c=d/é.txt"] == b"x"


async def test_an_unlisted_store_is_not_called(s3: Store) -> None:
    export = in_bucket(s3)
    strict = HttpClient(CheckedResolver(Egress()))
    with pytest.raises(TargetError, match="TOOLBUS_EGRESS_ALLOW"):
        await target_for(export, strict, secrets("x"), lambda: False).put("never", b"x")
    assert "lake/never" not in s3.objects()
