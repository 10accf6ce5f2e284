"""Syslog messages (RFC 5424), and their framing on a stream (no I/O)."""

from datetime import UTC, datetime

from toolbus_audit.export.ocsf import INFORMATIONAL, LOW, severity_of
from toolbus_audit.siem.records import Record

_LOG_AUDIT = 13  # the facility
_INFORMATIONAL, _NOTICE, _WARNING = 6, 5, 4
_SEVERITIES = {INFORMATIONAL: _INFORMATIONAL, LOW: _NOTICE}
LONGEST_HOST, LONGEST_NAME = 255, 32


def message_of(record: Record, host: str) -> bytes:
    """Return the message: the event's name as MSGID, its line as text in UTF-8 without BOM."""
    severity = _SEVERITIES.get(severity_of(record.event), _WARNING)
    at = datetime.fromtimestamp(record.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = _printable(record.event, LONGEST_NAME)
    head = (
        f"<{_LOG_AUDIT * 8 + severity}>1 {at} {_printable(host, LONGEST_HOST)} toolbus - {name} - "
    )
    return head.encode() + record.body


def octet_counted(message: bytes) -> bytes:
    """Frame a message by octet counting (RFC 6587, section 3.4.1; RFC 5425)."""
    return b"%d %b" % (len(message), message)


def _printable(text: str, longest: int) -> str:
    """Return the printable ASCII characters except blanks; `-` if no character remains."""
    return "".join(sign for sign in text if "!" <= sign <= "~")[:longest] or "-"
