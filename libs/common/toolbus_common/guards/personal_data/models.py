"""Names and places, found by a model of Presidio: the extra `presidio`."""

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from toolbus_common.guards.personal_data.model_options import INSTALL, RULES
from toolbus_common.guards.texts.findings import Finding

LONGEST: Final = 100_000  # characters of a document; a model needs about 1 s for them


class MissingModelError(ValueError):
    """Presidio or its model is not installed."""


class ModelDetector:
    """Finds names of persons, places, organizations, nationalities and religions."""

    def __init__(self, names: frozenset[str], model: str, language: str) -> None:
        """Load a model of spaCy: a package or a directory. Raises `MissingModelError`."""
        self._rules = {entity: rule for rule, entity in RULES.items() if rule in names}
        self._engine, self.version = _engine(model, language)
        self._language = language

    def find(self, texts: Sequence[str]) -> list[Finding]:
        """Return the findings in each text. Raises `ValueError` if the texts are too long."""
        if not self._rules:
            return []
        if sum(map(len, texts)) > LONGEST:
            raise ValueError(
                f"its model cannot check more than {LONGEST:,} characters; "
                "remove options.models, or limit the size of results with a guard of kind limits"
            )
        return [
            Finding(self._rules[each.entity_type], number, each.start, each.end, each.score)
            for number, text in enumerate(texts)
            if " " in text or text.istitle()
            for each in self._engine.analyze(text, self._language, entities=[*self._rules])
        ]


@lru_cache(maxsize=4)
def _engine(model: str, language: str) -> tuple[Any, str]:
    """Return Presidio's engine with a model, and the name of their versions."""
    try:
        analyzer = import_module("presidio_analyzer")
        provider = import_module("presidio_analyzer.nlp_engine").NlpEngineProvider
        spacy = import_module("spacy")
    except ImportError as error:
        raise MissingModelError(
            f"its option 'models' needs Presidio, which is not installed: run {INSTALL}"
        ) from error
    # Presidio would download a missing model.
    if not spacy.util.is_package(model) and not Path(model).is_dir():
        raise MissingModelError(
            f"its model {model} is not installed: run `python -m spacy download {model}`, "
            "or set options.model to the directory of a model of spaCy"
        )
    configuration = {
        "nlp_engine_name": "spacy",
        "models": [{"lang_code": language, "model_name": model}],
    }
    nlp = provider(nlp_configuration=configuration).create_engine()
    engine = analyzer.AnalyzerEngine(nlp_engine=nlp, supported_languages=[language])
    meta = nlp.nlp[language].meta
    return engine, f"spacy-{meta['name']}-{meta['version']}"
