"""`toolbus` starts here. `toolbus run` goes straight to the rooms, loading nothing it needs not."""

import gc
import sys
from importlib import import_module


def main() -> int:
    """Run the command line; the exit code."""
    gc.disable()  # what is imported stays: looking through it all the while is a fifth of a start
    words = sys.argv[1:]
    if words[:1] == ["run"] and not {"-h", "--help"}.intersection(words):
        return _run(words[1:])
    commanding = import_module("toolbus_cli.commanding")
    code: int = commanding.main(words)
    return code


def _run(names: list[str]) -> int:
    process = import_module("toolbus_common.process")
    unknown = [name for name in names if name not in process.ROOMS]
    if unknown or not names or len(set(names)) < len(names):
        wrong = f"There is no room '{unknown[0]}'" if unknown else "Name each room once"
        sys.stderr.write(f"{wrong}; the rooms are {', '.join(process.ROOMS)}.\n")
        return 2
    code: int = process.run(names)
    return code


if __name__ == "__main__":
    sys.exit(main())
