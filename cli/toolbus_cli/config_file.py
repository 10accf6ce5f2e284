"""Reader of configuration files that reports all validation errors at once."""

from collections.abc import Mapping
from pathlib import Path

from toolbus_cli.errors import CommandError
from toolbus_common.config_store.loading.document import ConfigProblem
from toolbus_common.config_store.loading.loader import Loaded, load

LARGEST_FILE = 4 * 1024 * 1024


class ConfigurationError(CommandError):
    """The configuration file is invalid: the message lists every error, and nothing was applied."""

    def __init__(self, path: Path, faults: tuple[ConfigProblem, ...]) -> None:
        count = "1 error" if len(faults) == 1 else f"{len(faults)} errors"
        lines = [f"{path}:{problem.line}: {problem}" for problem in faults]
        super().__init__("\n".join([*lines, f"{path} has {count}; nothing was applied."]))


def load_file(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Load and validate a file.

    Raises:
        ConfigurationError: the file has validation errors; the message lists all of them.
        CommandError: the file cannot be read.

    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CommandError(
                f"{path} is larger than {LARGEST_FILE >> 20} MiB; configure fewer keys, and "
                "create the others with 'toolbus keys create'."
            )
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise CommandError(
            f"{path} cannot be read ({reason}); choose another file with -c."
        ) from error
    loaded = load(text, environ, path.resolve().parent)
    if loaded.problems:
        raise ConfigurationError(path, loaded.problems)
    return loaded
