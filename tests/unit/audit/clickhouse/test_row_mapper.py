"""Stream lines mapped to rows: every line is accounted for."""

from decimal import Decimal
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.audit.events import allowed, completed
from toolbus_audit.clickhouse.row_mapper import LAST_LINE, columns, read, rejected_row, token
from toolbus_common.contracts import CallFailed, Event

SUBJECT = "tb.event.call.allowed.acme"
MINIMAL = b'{"event":"f","id":"i","at":1.5,"producer":"p","seq":1,"customer":"s"}'


def line(event: Event, seq: int = 1) -> bytes:
    head = b'{"event":"%b","producer":"p","seq":%d,' % (event.NAME.encode(), seq)
    return head + event.encode()[1:]


def changed(**given: object) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(MINIMAL) | given)


def test_a_message_gives_a_row_for_every_line_in_order() -> None:
    rows, dead = read(SUBJECT, 7, b"\n".join(line(allowed(), n) for n in range(1, 4)))
    assert [(row.line, row.seq) for row in rows] == [(0, 1), (1, 2), (2, 3)]
    assert {row.stream_seq for row in rows} == {7}
    assert dead == []


def test_a_line_nested_too_deeply_is_a_dead_letter_and_the_others_are_rows() -> None:
    deep = b'{"x":' * 200_000 + b"1" + b"}" * 200_000
    rows, dead = read(SUBJECT, 7, b"\n".join((line(allowed()), deep, line(allowed(), 2))))
    assert ([row.line for row in rows], [row.line for row in dead]) == ([0, 2], [1])


def test_a_failure_keeps_its_code_its_reason_and_whether_it_was_sent() -> None:
    failed = CallFailed(
        **completed().model_dump(), code="upstream_timeout", reason="Slow.", sent=True
    )
    (row,), _ = read(SUBJECT, 1, line(failed))
    assert (row.code, row.reason, row.sent) == ("upstream_timeout", "Slow.", True)
    assert row.latency_us == failed.latency_us


def test_a_completed_call_counts_as_sent() -> None:
    (row,), _ = read(SUBJECT, 1, line(completed()))
    assert row.sent


def test_a_row_keeps_the_whole_event_as_it_was_published() -> None:
    message = line(allowed(arguments_digest="ab" * 32))
    (row,), _ = read(SUBJECT, 1, message)
    assert row.detail == message.decode()


def test_a_field_without_a_column_is_stored_in_the_detail() -> None:
    (row,), dead = read(SUBJECT, 1, changed(invented={"deep": [1]}))
    assert dead == []
    assert '"deep"' in row.detail


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{not json",
        b"[]",
        b"null",
        b"\xff",
        b'{"event":"f"}',
        changed(id=""),
        changed(at="now"),
        changed(at=-1),
        changed(at=1e12),
        changed(seq=-1),
        changed(charge=2**63),
        changed(is_error="yes"),
        MINIMAL[:-1] + b',"detail":"\xc3\x28"}',
    ],
)
def test_an_unreadable_line_becomes_a_dead_letter_and_the_others_are_rows(bad: bytes) -> None:
    rows, dead = read(SUBJECT, 9, b"\n".join((MINIMAL, bad, MINIMAL)))
    assert [row.line for row in rows] == [0, 2]
    assert [(one.stream_seq, one.line, one.subject) for one in dead] == [(9, 1, SUBJECT)]
    assert dead[0].reason


@given(st.binary(max_size=200))
def test_every_line_of_any_message_is_accounted_for(data: bytes) -> None:
    rows, dead = read(SUBJECT, 1, data)
    lines = sorted([row.line for row in rows] + [one.line for one in dead])
    assert lines == list(range(data.count(b"\n") + 1))


def test_a_line_cannot_choose_its_position_in_the_stream() -> None:
    (row,), _ = read(SUBJECT, 5, changed(stream_seq=99, line=99, detail="forged"))
    assert (row.stream_seq, row.line) == (5, 0)
    assert row.detail.startswith("{")


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_line_numbers_do_not_overflow_and_the_rest_of_a_long_message_is_a_dead_letter(
    extra: int,
) -> None:
    lines = [MINIMAL] * (LAST_LINE + 1 + extra)
    rows, dead = read(SUBJECT, 1, b"\n".join(lines))
    assert len({row.line for row in rows}) == len(rows)
    assert max(row.line for row in rows) <= LAST_LINE
    if not extra:
        assert (len(rows), dead) == (LAST_LINE + 1, [])
    else:
        (rest,) = dead
        assert (len(rows), rest.line) == (LAST_LINE, LAST_LINE)
        assert rest.digest == sha256(b"\n".join(lines[LAST_LINE:])).hexdigest()
        assert "65536 lines" in rest.reason


def test_columns_have_a_value_for_every_row() -> None:
    rows, dead = read(SUBJECT, 1, b"\n".join((MINIMAL, changed(charge=7), b"x", b"y")))
    for what in (rows, dead):
        names, types, values = columns(what)
        assert len(names) == len(types) == len(values)
        assert {len(each) for each in values} == {2}
    names, types, values = columns(rows)
    charge = names.index("charge")
    assert (types[charge], values[charge]) == ("Int64", [0, 7])


def test_columns_without_a_value_are_left_out() -> None:
    rows, _ = read(SUBJECT, 1, MINIMAL)
    names = columns(rows).names
    assert "event" in names
    assert "charge" not in names


def test_a_time_is_a_whole_number_of_microseconds() -> None:
    rows, _ = read(SUBJECT, 1, changed(at=1795426687.809382))
    names, _, values = columns(rows)
    assert values[names.index("at")] == [1795426687809382]


def test_a_row_the_store_rejects_becomes_a_dead_letter_with_its_whole_line() -> None:
    (row,), _ = read(SUBJECT, 3, MINIMAL)
    letter = rejected_row(row, "Too large.")
    assert (letter.stream_seq, letter.line, letter.reason, letter.raw) == (
        *(3, 0, "Too large."),
        MINIMAL.decode(),
    )


def test_equal_rows_have_equal_tokens() -> None:
    message = b"\n".join(line(allowed(id=f"c{n}.allowed"), n) for n in range(4))
    first, _ = read(SUBJECT, 7, message)
    again, _ = read(SUBJECT, 7, message)
    assert token(first) == token(again)
    assert token(first).startswith("7-7-")
    parts = [first, first[:2], first[2:], [first[0], first[1], first[3]]]
    assert len(set(map(token, parts))) == len(parts)


@given(st.floats(min_value=0.001, max_value=4e9))
def test_times_are_cut_off_at_microseconds_like_times_in_text(at: float) -> None:
    (row,), _ = read(SUBJECT, 7, changed(at=at))
    found = columns([row])
    exact = int(Decimal(repr(at)) * 1_000_000)
    assert found.values[found.names.index("at")] == [exact]
