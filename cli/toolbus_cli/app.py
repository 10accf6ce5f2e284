"""The commands: what they are called, what they take, and the help that teaches them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from toolbus_cli.errors import CommandError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
StateDir = Annotated[Path, typer.Option("--state-dir", envvar="TOOLBUS_STATE_DIR")]


def main(words):
    try:
        return app(words, standalone_mode=False) or 0
    except CommandError as error:
        sys.stderr.write(error.sentence + "\n")
        return error.code


@app.callback()
def root() -> None:
    """x"""


@app.command()
def up(
    config: Annotated[Path | None, typer.Option("-c")] = None,
    state_dir: StateDir = Path(".toolbus"),
    host: str = "127.0.0.1",
    port: int = 8080,
    apart: bool = False,
    ready_file: Path | None = None,
) -> None:
    from toolbus_cli.launcher.up import up, Options

    raise typer.Exit(up(Options(config, state_dir, host, port, apart, ready_file)))
