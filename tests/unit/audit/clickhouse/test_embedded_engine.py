"""Import of the embedded engine: fast and small, and without effects on later imports."""

import subprocess
import sys

CODE = """
import sys
import toolbus_audit.main
print(sorted({"numpy", "pandas", "pyarrow"} & set(sys.modules)))
from toolbus_audit.clickhouse.embedded_engine import connect
connection = connect(":memory:")
print(connection.query("SELECT sum(number) FROM numbers(5)").bytes().decode().strip())
connection.close()
import pyarrow
print(pyarrow.array([1]).to_pylist())
"""


def test_audit_imports_the_engine_without_pyarrow_which_others_can_import_later() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=180, check=True
    )
    assert done.stdout.splitlines() == ["[]", "10", "[1]"]
