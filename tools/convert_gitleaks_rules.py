"""Convert the rules of gitleaks to the data of the guard of kind secrets.

Get the rules as a Go module, then convert them:

    go mod download -json github.com/zricethezav/gitleaks/v8@v8.30.1   # prints "Dir"
    python tools/convert_gitleaks_rules.py DIR v8.30.1
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

DATA = (
    Path(__file__).parents[1] / "libs" / "common" / "toolbus_common" / "guards" / "secrets" / "data"
)
# Rules that match only names of files, and one that is not precise without them.
LEFT_OUT = {"pkcs12-file", "kubernetes-secret-yaml"}


def converted(rules: dict[str, Any], version: str) -> dict[str, Any]:
    """Return the data: the rules without descriptions and without what concerns paths."""
    return {
        "source": "github.com/zricethezav/gitleaks/v8",
        "version": version,
        "license": "MIT",
        "allowlist": _allowlist(rules["allowlist"]),
        "rules": [_rule(each) for each in rules["rules"] if each["id"] not in LEFT_OUT],
    }


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    kept = {"id": rule["id"], "regex": rule["regex"], "keywords": rule["keywords"]}
    if "entropy" in rule:
        kept["entropy"] = rule["entropy"]
    if "secretGroup" in rule:
        kept["group"] = rule["secretGroup"]
    lists = [_allowlist(each) for each in rule.get("allowlists", ()) if "paths" not in each]
    return {**kept, "allowlists": lists} if lists else kept


def _allowlist(allowed: dict[str, Any]) -> dict[str, Any]:
    kept = {
        "target": allowed.get("regexTarget", "secret"),
        "regexes": allowed.get("regexes", []),
        "stopwords": sorted({each.lower() for each in allowed.get("stopwords", [])}),
    }
    return {name: value for name, value in kept.items() if value}


def main() -> None:
    """Write the data and the licence from the directory of the Go module."""
    module, version = Path(sys.argv[1]), sys.argv[2]
    rules = tomllib.loads((module / "config" / "gitleaks.toml").read_text())
    text = json.dumps(converted(rules, version), indent=0, ensure_ascii=False)
    (DATA / "gitleaks.json").write_text(f"{text}\n")
    (DATA / "gitleaks.LICENSE").write_text((module / "LICENSE").read_text())


if __name__ == "__main__":
    main()
