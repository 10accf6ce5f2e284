"""Entry point of `toolbus`; `run` starts services without loading the other commands."""

import gc
import os
import sys
from importlib import import_module


def main() -> int:
    """Run the command line; return its exit code."""
    gc.disable()  # garbage collection during imports takes a fifth of the startup
    words = sys.argv[1:]
    if words[:1] == ["run"] and not {"-h", "--help"}.intersection(words):
        return _run(words[1:])
    if words == ["--version"]:
        words = ["version"]
    commanding = import_module("toolbus_cli.runner")
    code: int = commanding.main(words)
    return code


def _run(words: list[str]) -> int:
    services = import_module("toolbus_common.service.names").SERVICES
    try:
        names, ops_listen = _split(words)
        import_module("toolbus_common.listen_address").parsed(
            ops_listen or os.environ.get("TOOLBUS_OPS_LISTEN") or "127.0.0.1:0"
        )
    except ValueError as error:
        sys.stderr.write(f"--ops-listen or TOOLBUS_OPS_LISTEN: {error}.\n")
        return 2
    unknown = [name for name in names if name not in services]
    if unknown or not names or len(set(names)) < len(names):
        wrong = f"There is no service '{unknown[0]}'" if unknown else "Name each service once"
        sys.stderr.write(f"{wrong}; the services are {', '.join(services)}.\n")
        return 2
    code: int = import_module("toolbus_common.service.process").run(names, ops_listen)
    return code


def _split(words: list[str]) -> tuple[list[str], str]:
    """Return the services and the value of `--ops-listen`. Raises `ValueError`."""
    names, ops_listen = [], ""
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        if option != "--ops-listen":
            names.append(word)
        elif not (ops_listen := value if equals else next(left, "")):
            raise ValueError("the address is missing; write --ops-listen HOST:PORT")
    return names, ops_listen


if __name__ == "__main__":
    sys.exit(main())
