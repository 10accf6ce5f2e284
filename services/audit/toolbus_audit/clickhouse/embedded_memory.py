"""Return of memory that the embedded engine and its inserts no longer use to the machine.

The start of the engine executes code all over its library, and the kernel maps the neighbours of
each page: 170 to 200 MB of the library count as memory of audit, of which inserts and merges use a
quarter. After an insert of some thousand rows the C library keeps the freed blocks between those
in use. Nothing that the process can read changes here.
"""

import asyncio
import ctypes
import re
from pathlib import Path

# Audit shares a small machine with the other services. A query reads what a cache no longer holds.
EMBEDDED_SETTINGS = {
    "mark_cache_size": "8388608",
    "index_mark_cache_size": "1048576",
    "primary_index_cache_size": "16777216",  # 5 GB by default
    "query_condition_cache_size": "8388608",  # 100 MB by default
    "max_thread_pool_size": "64",
    "max_thread_pool_free_size": "0",  # each idle thread keeps a stack and a cache of the allocator
}
# A merge has buffers of 2 MB for each of some forty columns, unless they begin small and grow.
MERGE_TREE_SETTINGS = {"min_columns_to_activate_adaptive_write_buffer": "1"}
LIBRARY = "_chdb.abi3.so"
PERIOD_SECONDS = 5.0
_MADV_DONTNEED = 4  # <asm-generic/mman-common.h>
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # <malloc.h> of glibc
LARGE_BLOCK = 1 << 20
_OWN_PAGES = re.compile(r"(Anonymous|Swap): +[1-9][0-9]* kB")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ +(.*)")

Region = tuple[int, int]  # address and length in bytes


async def return_memory_periodically() -> None:
    """Return unused memory every five seconds."""
    limit_allocator()
    regions = await asyncio.to_thread(code_regions, LIBRARY)
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        await asyncio.to_thread(return_memory, regions)


def limit_allocator() -> None:
    """Let the C library return large blocks when they are freed, and use one heap for all threads.

    Otherwise it raises the size that it returns to that of the largest freed block, such as the
    columns of an insert (14 MB), and each thread that inserts or queries keeps free blocks of its
    own. The engine has another allocator; Python code holds a lock while it allocates.
    """
    if configure := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc alone has it
        configure(_M_MMAP_THRESHOLD, LARGE_BLOCK)
        configure(_M_ARENA_MAX, 1)


def code_regions(library: str) -> list[Region]:
    """Return the mappings of a library that cannot be written and hold no page of the process.

    A page of relocated pointers differs from the file, so its mapping is left out, also while the
    page is swapped out.
    """
    try:
        lines = Path("/proc/self/smaps").read_text().splitlines()
    except OSError:  # not Linux
        return []
    found: list[Region] = []
    region: Region | None = None
    for line in lines:
        if mapping := _MAPPING.fullmatch(line):
            first, end, rights, path = mapping.groups()
            start = int(first, 16)
            ours = Path(path).name == library and "w" not in rights
            region = (start, int(end, 16) - start) if ours else None
        elif region is not None and _OWN_PAGES.fullmatch(line):
            region = None
        elif region is not None and line.startswith("VmFlags:"):  # the last line of a mapping
            found.append(region)
    return found


def return_memory(regions: list[Region]) -> None:
    """Unmap the pages of these mappings, and return the C library's free blocks.

    The next access to a page maps it again, from the page cache as a rule.
    """
    libc = ctypes.CDLL(None)
    for address, length in regions:
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _MADV_DONTNEED)
    if trim := getattr(libc, "malloc_trim", None):  # glibc alone has it
        trim(0)
