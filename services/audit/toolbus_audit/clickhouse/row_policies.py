"""Row policies of the embedded engine: whose rows a connection sees, whatever it asks.

The engine has one user, and takes policies from a file alone. So the policy is the same for all
connections, and reads whose rows it may show from a setting that text fits into, `log_comment`:
empty for audit's own work, else a reader's customers, set before the connection becomes read-only.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from toolbus_audit.clickhouse.migrate import RECORD, Migration

CARRIER = "log_comment"
EVERYTHING = "*"
_SAID = f"getSetting('{CARRIER}')"
_ALL = f"{_SAID} IN ('', '{EVERYTHING}')"
_OF_CUSTOMER = f"{_ALL} OR has(splitByChar(',', {_SAID}), customer)"
_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)\s*\((.*?)\)\s*ENGINE", re.DOTALL)
_SCOPED = re.compile(r"^\s*\(?customer\s", re.MULTILINE)


def customers(whose: Sequence[str]) -> str:
    """What a connection's setting says for a reader of these customers."""
    return EVERYTHING if EVERYTHING in whose else ",".join(whose)


def filters(known: Iterable[Migration]) -> dict[str, str]:
    """The filter of every table: by its customer, or where a row has none, for all or nobody."""
    statements = [RECORD, *(each for migration in known for each in migration.statements())]
    return {
        match[1]: _OF_CUSTOMER if _SCOPED.search(match[2]) else _ALL
        for statement in statements
        if (match := _TABLE.search(statement))
    }


def users(database: str, filtered: dict[str, str]) -> str:
    """The file of users: the engine's one, with its policies."""
    policies = "".join(
        f"<{table}><filter>{escape(rule)}</filter></{table}>" for table, rule in filtered.items()
    )
    return (
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default>"
        "<password/><networks><ip>::/0</ip></networks><profile>default</profile>"
        f"<quota>default</quota><databases><{database}>{policies}</{database}></databases>"
        "</default></users></clickhouse>\n"
    )


def laid_down(beside: Path, database: str, known: Iterable[Migration]) -> Path:
    """Write what the engine reads when it begins; the file to name to it."""
    directory = beside.with_name(f"{beside.name}.policies")
    directory.mkdir(mode=0o700, exist_ok=True)
    told = directory / "users.xml"
    told.write_text(users(database, filters(known)))
    configuration = directory / "config.xml"
    configuration.write_text(
        f"<clickhouse><users_config>{escape(str(told.resolve()))}</users_config></clickhouse>\n"
    )
    return configuration
