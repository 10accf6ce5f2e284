"""`toolbus run ROOM…`: rooms in this process."""

import sys

from toolbus_common.process import ROOMS, run


def run_rooms(names: list[str]) -> int:
    """Run rooms until told to stop; the exit code."""
    unknown = [name for name in names if name not in ROOMS]
    if unknown:
        sys.stderr.write(f"No room {unknown[0]!r}; the rooms are {', '.join(ROOMS)}.\n")
        return 2
    return run(list(dict.fromkeys(names)))
