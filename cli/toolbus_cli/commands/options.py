"""Options that many commands have."""

from pathlib import Path
from typing import Annotated

import typer

StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir", envvar="TOOLBUS_STATE_DIR", help="The installation's state directory."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_STATE = Path(".toolbus")
