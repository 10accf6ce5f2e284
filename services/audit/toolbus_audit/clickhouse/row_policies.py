"""Row policies of the embedded engine: limit a connection to the rows of its customers.

The engine has one user and reads policies only from a file. All connections therefore share one
policy, which takes the customers from `log_comment`, a setting that can be any text. The text is
empty for audit's own connections. A reader's connection sets it to the reader's customers before
the connection becomes read-only.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from toolbus_audit.clickhouse.embedded_memory import MERGE_TREE_SETTINGS
from toolbus_audit.clickhouse.migrate import RECORD, Migration

CARRIER = "log_comment"
EVERYTHING = "*"
_CUSTOMERS = f"getSetting('{CARRIER}')"
_ALL = f"{_CUSTOMERS} IN ('', '{EVERYTHING}')"
_OF_CUSTOMER = f"{_ALL} OR has(splitByChar(',', {_CUSTOMERS}), customer)"
_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)\s*\((.*?)\)\s*ENGINE", re.DOTALL)
_HAS_CUSTOMER = re.compile(r"^\s*\(?customer\s", re.MULTILINE)


def customers(names: Sequence[str]) -> str:
    """Return the value of the setting for a reader of these customers."""
    return EVERYTHING if EVERYTHING in names else ",".join(names)


def filters(known: Iterable[Migration]) -> dict[str, str]:
    """Return the filter of every table.

    A table with a column `customer` is filtered by it. Other tables are visible only to readers of
    all customers.
    """
    statements = [RECORD, *(each for migration in known for each in migration.statements())]
    return {
        match[1]: _OF_CUSTOMER if _HAS_CUSTOMER.search(match[2]) else _ALL
        for statement in statements
        if (match := _TABLE.search(statement))
    }


def users_xml(database: str, filtered: dict[str, str]) -> str:
    """Return the engine's users.xml: its only user, with the policies of all tables."""
    policies = "".join(
        f"<{table}><filter>{escape(rule)}</filter></{table}>" for table, rule in filtered.items()
    )
    return (
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default>"
        "<password/><networks><ip>::/0</ip></networks><profile>default</profile>"
        f"<quota>default</quota><databases><{database}>{policies}</{database}></databases>"
        "</default></users></clickhouse>\n"
    )


def write_files(data: Path, database: str, known: Iterable[Migration]) -> Path:
    """Write the engine's configuration beside its data directory; return the path of config.xml."""
    directory = data.with_name(f"{data.name}.policies")
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "users.xml"
    path.write_text(users_xml(database, filters(known)))
    configuration = directory / "config.xml"
    memory = "".join(f"<{name}>{value}</{name}>" for name, value in MERGE_TREE_SETTINGS.items())
    configuration.write_text(
        f"<clickhouse><users_config>{escape(str(path.resolve()))}</users_config>"
        f"<merge_tree>{memory}</merge_tree></clickhouse>\n"
    )
    return configuration
