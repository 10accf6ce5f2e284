"""Static text embeddings, for semantic search and the semantic cache. Optional, off by default.

A model is a table with a vector per token, and a tokenizer; the vector of a text is the mean of its
tokens' vectors. The package `wordllama` contains a model. Any directory with `model.safetensors`
and `tokenizer.json`, as model2vec writes it, is a model too. Nothing is downloaded.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGED = "wordllama"
_PACKAGED_FILES = (
    "weights/l2_supercat_256.safetensors",
    "tokenizers/l2_supercat_tokenizer_config.json",
)
_FILES = ("model.safetensors", "tokenizer.json")
LONGEST = 2_000  # characters of a text that are read


class NoModelError(Exception):
    """The model is missing or unreadable; the message contains the fix."""


class EmbeddingModel:
    """Loaded embedding model."""

    def __init__(self, where: str) -> None:
        """Load the packaged model, or a model from a directory. Raises `NoModelError`."""
        table, tokenizer = _files(where)
        try:
            import numpy  # noqa: ICN001, PLC0415 - the extra `search` brings these three
            from safetensors import safe_open  # noqa: PLC0415
            from tokenizers import Tokenizer  # noqa: PLC0415

            with safe_open(table, framework="np") as held:
                (name, *_) = held.keys()
                self._table = held.get_tensor(name)
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except ImportError as error:
            raise NoModelError(_missing("the packages that read it")) from error
        except Exception as error:  # these libraries raise any exception
            raise NoModelError(f"The model in {where} cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._numpy = numpy

    def of(self, text: str) -> Any:
        """Return a text's unit vector, or the zero vector if no token is known."""
        encoded = self._tokenizer.encode(text[:LONGEST], add_special_tokens=False)
        known = [token for token in encoded.ids if token < len(self._table)]
        mean = self._table[known].astype("float32").sum(axis=0)
        return mean / (float(self._numpy.linalg.norm(mean)) or 1.0)

    def alike(self, vectors: list[Any], text: str) -> list[float]:
        """Return the cosine similarity of each vector to a text."""
        if not vectors:
            return []
        found: list[float] = (self._numpy.stack(vectors) @ self.of(text)).tolist()
        return found


def _files(where: str) -> tuple[Path, Path]:
    if where != PACKAGED:
        table, tokenizer = (Path(where) / name for name in _FILES)
    else:
        package = find_spec(PACKAGED)
        if package is None or package.origin is None:
            raise NoModelError(_missing(f"the package {PACKAGED}"))
        table, tokenizer = (Path(package.origin).parent / name for name in _PACKAGED_FILES)
    for path in (table, tokenizer):
        if not path.is_file():
            raise NoModelError(f"{path.name} is not in {where}; name a directory with both files.")
    return table, tokenizer


def _missing(what: str) -> str:
    return f"Embeddings need {what}: pip install 'toolbus[search]'."
