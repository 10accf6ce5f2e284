"""Encrypted records: bound to their location, under keys that may be replaced."""

import logging
from pathlib import Path

import pytest

from toolbus_common.errors import UnavailableError
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.sealed_records import RecordKey, Records

OLD, NEW = bytes(32), bytes(range(32))
RECORD = b"arguments of a call"


def test_a_record_opens_at_its_location() -> None:
    records = Records("tb_tasks", [OLD])
    sealed = records.seal("one", RECORD)
    assert RECORD not in sealed
    assert records.seal("one", RECORD) != sealed, "equal records do not look alike"
    assert records.open("one", sealed) == RECORD


@pytest.mark.parametrize(
    ("bucket", "entry", "key"),
    [("tb_tasks", "other", OLD), ("tb_approvals", "one", OLD), ("tb_tasks", "one", NEW)],
)
def test_a_record_does_not_open_elsewhere(bucket: str, entry: str, key: bytes) -> None:
    sealed = Records("tb_tasks", [OLD]).seal("one", RECORD)
    with pytest.raises(UnavailableError, match=r"TOOLBUS_POLICY_EARLIER_KEYS"):
        Records(bucket, [key]).open(entry, sealed)


@pytest.mark.parametrize("altered", [b"", b"\x01", b'{"plain":1}', b"\x01" + bytes(40)])
def test_an_altered_record_does_not_open(altered: bytes) -> None:
    with pytest.raises(UnavailableError):
        Records("tb_tasks", [OLD]).open("one", altered)


def test_every_byte_of_a_record_counts() -> None:
    records = Records("tb_tasks", [OLD])
    sealed = records.seal("one", RECORD)
    for at in range(len(sealed)):
        altered = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(UnavailableError):
            records.open("one", altered)


def test_a_key_is_replaced_while_records_it_sealed_remain(tmp_path: Path) -> None:
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    before = Records.at("tb_tasks", old).seal("one", RECORD)
    both = Records.at("tb_tasks", new, [old])
    assert both.open("one", before) == RECORD
    after = both.seal("one", RECORD)
    assert Records.at("tb_tasks", new).open("one", after) == RECORD
    with pytest.raises(UnavailableError):
        Records.at("tb_tasks", old).open("one", after)


def test_the_key_of_one_entry_seals_that_entry_alone() -> None:
    records = Records("tb_outcomes", [OLD])
    key = RecordKey.decode(records.key_of("one").encode())
    assert records.open("one", key.seal(RECORD)) == RECORD
    with pytest.raises(UnavailableError):
        records.open("two", key.seal(RECORD))


def test_a_change_that_does_not_open_counts_as_deleted_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = Records("tb_tasks", [OLD])
    sealed = Change("one", records.seal("one", RECORD), 3)
    assert records.opened(sealed) == Change("one", RECORD, 3)
    with caplog.at_level(logging.ERROR):
        assert records.opened(Change("two", sealed.value, 4)) == Change("two", None, 4)
    assert "record.not_decrypted" in caplog.text
    assert records.opened(None) is None
