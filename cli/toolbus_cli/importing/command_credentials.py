"""Credentials in the values and commands of imported servers (no I/O).

A credential is recognized by the name of its field or option, or by its form: the rules of the
guard for secrets.
"""

import re
import shlex
from functools import cache

from toolbus_cli.importing.environment_variables import environment_variable
from toolbus_common.guards.secrets.detector import SecretsDetector

CREDENTIAL = re.compile(
    r"token|secret|passw|auth|credential|cookie|(?:^|[_-])(?:api)?key", re.IGNORECASE
)
_DETECTOR = cache(SecretsDetector)


def is_credential(name: str, value: str) -> bool:
    """Return whether a value is a credential, by its name or by its form."""
    return bool(CREDENTIAL.search(name)) or bool(_DETECTOR().find([value]))


def without_credentials(
    server: str, words: list[str], moved: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return a command that reads its credentials from variables, and those variables.

    A command cannot contain references, so the result is a shell command that uses variables of its
    environment. `moved` receives their names.
    """
    shown: list[str] = []
    variables: dict[str, str] = {}
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        option, sign, value = word.partition("=")
        if not (sign and option.startswith("-")):
            option, value = before if before.startswith("-") and "=" not in before else "", word
            sign = ""
        named = bool(option and CREDENTIAL.search(option)) and value[:1] != "-"
        if not value or "${" in value or not (named or _DETECTOR().find([value])):
            shown.append(shlex.quote(word))
            continue
        variable = environment_variable(server, option or "argument")
        while variable in variables:
            variable = f"{variable}_2"
        variables[variable] = f"${{env:{variable}}}"
        place_of = f"option {option}" if option else "an argument"
        moved[variable] = f"the credential in the command of {server}, {place_of}"
        shown.append((shlex.quote(f"{option}=") if sign else "") + f'"${variable}"')
    if not variables:
        return words, {}
    return ["sh", "-c", f"exec {' '.join(shown)}"], variables
