"""The options of a guard of kind `pii`: its model of names and places (no I/O)."""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

OPTIONS: Final = ("models", "model", "language")
MODEL: Final = "en_core_web_sm"
LANGUAGE: Final = "en"
INSTALL: Final = "pip install 'toolbus[presidio]'"
# Only what needs a model: Presidio's other recognizers use expressions that are not linear in time,
# and one of them downloads a list of domains.
RULES: Final = {
    "person": "PERSON",
    "location": "LOCATION",
    "organization": "ORGANIZATION",
    "nationality": "NRP",
}
_LONGEST = 512
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def chosen(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return the options of the model; empty without one."""
    if not options.get("models"):
        return ()
    model, language = options.get("model", MODEL), options.get("language", LANGUAGE)
    return ("models", True), ("model", str(model)), ("language", str(language))


def problems(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the options."""
    for name, value in options.items():
        if name not in OPTIONS:
            yield f"unknown option '{name}' of pii; use {', '.join(OPTIONS)}"
        elif name == "models" and not isinstance(value, bool):
            yield "option 'models' must be true or false"
        elif name == "model" and not (isinstance(value, str) and 0 < len(value) <= _LONGEST):
            yield "option 'model' must be the name of a model of spaCy, or its directory"
        elif name == "language" and not (isinstance(value, str) and _LANGUAGE.fullmatch(value)):
            yield "option 'language' must be a code of a language, such as en"
    if {"model", "language"} & options.keys() and options.get("models") is not True:
        yield "options model and language need models: true; set it, or remove them"


def missing(options: Mapping[str, Any]) -> str:
    """Return why the model cannot be loaded on this machine; empty if Presidio is installed."""
    if options.get("models") is not True or find_spec("presidio_analyzer") is not None:
        return ""
    return (
        "'options.models' needs Presidio, which is not installed here: where policy and executor "
        f"run, install it with {INSTALL}"
    )
