"""Return of memory to the machine: the process reads the same bytes before and after."""

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

from toolbus_audit.clickhouse.embedded_memory import code_regions, return_memory

SIZE = 4 << 20

ENGINE = """
from toolbus_audit.clickhouse.embedded_engine import connect
from toolbus_audit.clickhouse.embedded_memory import LIBRARY, code_regions, return_memory

connection = connect(":memory:")
regions = code_regions(LIBRARY)
for _ in range(3):
    print(connection.query("SELECT sum(number) FROM numbers(5)").bytes().decode().strip())
    return_memory(regions)
connection.close()
print(sum(length for _, length in regions) > 100 << 20)
"""

CLEANING = """
import os, sys, time
from pathlib import Path
from urllib.parse import urlencode

from toolbus_audit.clickhouse.embedded_engine import connect
from toolbus_audit.clickhouse.embedded_memory import EMBEDDED_SETTINGS
from toolbus_audit.clickhouse.row_policies import write_files

store = Path(sys.argv[1])
options = EMBEDDED_SETTINGS | {"config-file": str(write_files(store, "default", []))}
connection = connect(f"{store}?{urlencode(options)}")
connection.query(
    "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS old_parts_lifetime = 0,"
    " cleanup_delay_period = 1, max_cleanup_delay_period = 1, cleanup_delay_period_random_add = 0"
)

def merged():
    counted = "SELECT count() FROM system.parts WHERE table = 't' AND NOT active"
    return int(connection.query(counted).bytes())

for number in range(250):
    connection.query(f"INSERT INTO t VALUES ({number})")
connection.query("OPTIMIZE TABLE t FINAL")
while merged():
    time.sleep(0.05)
print(len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
connection.close()
"""


def _file(path: Path) -> mmap.mmap:
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


def test_unmapped_pages_of_a_file_are_read_again(tmp_path: Path) -> None:
    mapped = _file(tmp_path / "library.so")
    before = bytes(mapped)
    ((address, length),) = regions = code_regions("library.so")
    assert (length, _resident_kb(address)) == (SIZE, SIZE // 1024)
    return_memory(regions)
    assert _resident_kb(address) == 0
    assert bytes(mapped) == before
    mapped.close()


def test_a_mapping_that_was_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_WRITE)
    assert code_regions(path.name) == []
    mapped[0] = 1  # a relocation writes such a page; then the loader makes the mapping read-only
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(SIZE), mmap.PROT_READ) == 0
    assert code_regions(path.name) == []
    assert mapped[0] == 1


def test_the_engine_answers_after_its_code_was_unmapped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENGINE], capture_output=True, text=True, timeout=180, check=True
    )
    assert done.stdout.splitlines() == ["10", "10", "10", "True"]


def test_deleting_merged_parts_keeps_no_threads_and_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLEANING, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    threads, files = map(int, done.stdout.split())
    assert threads < 40, done.stdout
    assert files < 80, done.stdout


def _resident_kb(address: int) -> int:
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith(f"{address:x}-"):
            found = True
        elif found and line.startswith("Rss:"):
            return int(line.split()[1])
    raise AssertionError(f"no mapping at {address:x}")
