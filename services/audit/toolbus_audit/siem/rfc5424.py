"""An event as a message of RFC 5424, and how messages are told apart on a stream. Pure."""

from datetime import UTC, datetime

from toolbus_audit.export.ocsf import INFORMATIONAL, LOW, severity_of
from toolbus_audit.siem.records import Record

_LOG_AUDIT = 13  # the facility
_INFORMATIONAL, _NOTICE, _WARNING = 6, 5, 4
_SEVERITIES = {INFORMATIONAL: _INFORMATIONAL, LOW: _NOTICE}
LONGEST_HOST, LONGEST_NAME = 255, 32


def message_of(record: Record, host: str) -> bytes:
    """The message: the event's name is its MSGID, its line the text, in UTF-8 without a mark."""
    severity = _SEVERITIES.get(severity_of(record.event), _WARNING)
    at = datetime.fromtimestamp(record.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = _word(record.event, LONGEST_NAME)
    head = f"<{_LOG_AUDIT * 8 + severity}>1 {at} {_word(host, LONGEST_HOST)} toolbus - {name} - "
    return head.encode() + record.body


def framed(message: bytes) -> bytes:
    """The message counted in octets (RFC 6587, 3.4.1; RFC 5425)."""
    return b"%d %b" % (len(message), message)


def _word(text: str, longest: int) -> str:
    """Printable ASCII without blanks, or the nil value."""
    return "".join(sign for sign in text if "!" <= sign <= "~")[:longest] or "-"
