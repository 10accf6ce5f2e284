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
EndpointUrl = Annotated[
    str,
    typer.Option(
        envvar="TOOLBUS_URL", help="The endpoint's URL; default: the installation in --state-dir."
    ),
]
KeySecret = Annotated[str, typer.Option(envvar="TOOLBUS_KEY", help="The key's secret.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="A file that contains the key's secret.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_STATE = Path(".toolbus")
