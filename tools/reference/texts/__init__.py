"""Hand-written texts of generated pages, one YAML file per page; tests check completeness."""

from pathlib import Path

import yaml


def texts(page: str) -> dict[str, str]:
    """Return the texts of a page by the name of the described item."""
    read = yaml.safe_load((Path(__file__).parent / f"{page}.yaml").read_text())
    return {str(name): str(text).strip() for name, text in read.items()}
