"""The clock of a process, changed by libfaketime (Debian package `faketime`)."""

from pathlib import Path

LIBRARIES = Path("/usr/lib")
READ_SECONDS = 1  # between two looks of the library at the file


def clock_settings(file: Path) -> dict[str, str]:
    """Return the environment of a process whose clock follows `file`; timers do not."""
    found = sorted(LIBRARIES.glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise RuntimeError("libfaketime is not installed: apt-get install faketime")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": str(READ_SECONDS),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def set_clock(file: Path, seconds: int) -> None:
    """Let the clocks that follow `file` differ by `seconds` from the machine's clock."""
    new = file.with_suffix(".new")
    new.write_text(f"{seconds:+d}\n")
    new.rename(file)
