"""Return unused memory of the embedded engine to the operating system.

When the engine starts, it executes code throughout its library, and the kernel maps the pages
around each page in use. 170 to 200 MB of the library then count as memory of audit, although
inserts and merges use a quarter of it. After an insert of some thousand rows, the C library keeps
freed blocks that lie between blocks in use. This module returns both. It changes no data.
"""

import asyncio
import ctypes
import re
from pathlib import Path

# The caches are small, because audit shares its machine with the other services.
EMBEDDED_SETTINGS = {
    "mark_cache_size": "8388608",
    "index_mark_cache_size": "1048576",
    "primary_index_cache_size": "16777216",  # 5 GB by default
    "query_condition_cache_size": "8388608",  # 100 MB by default
    "max_thread_pool_size": "64",
    "max_thread_pool_free_size": "0",  # each idle thread keeps a stack and a cache of the allocator
}
# By default, a merge allocates a buffer of 2 MB for each of about forty columns. With this setting,
# the buffers start small and grow.
# Merged parts are deleted minutes later. By default, more than a hundred at once are deleted by 128
# threads, which do not end: each keeps a stack, and three files of /proc for its counters.
MERGE_TREE_SETTINGS = {
    "min_columns_to_activate_adaptive_write_buffer": "1",
    "concurrent_part_removal_threshold": "1000000",
}
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

    By default, the C library stops returning blocks that are smaller than the largest block freed
    so far, such as the columns of an insert (14 MB), and each thread that inserts or queries has a
    heap with free blocks of its own. The engine does not use this allocator. One heap does not slow
    down Python code, which holds a lock while it allocates.
    """
    if configure := getattr(ctypes.CDLL(None), "mallopt", None):  # only glibc has it
        configure(_M_MMAP_THRESHOLD, LARGE_BLOCK)
        configure(_M_ARENA_MAX, 1)


def code_regions(library: str) -> list[Region]:
    """Return the read-only mappings of a library whose pages are all unchanged from its file.

    A page with relocated pointers differs from the file, so its mapping is omitted, even while the
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

    The next access to a page maps it again, usually from the page cache.
    """
    libc = ctypes.CDLL(None)
    for address, length in regions:
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _MADV_DONTNEED)
    if trim := getattr(libc, "malloc_trim", None):  # only glibc has it
        trim(0)
