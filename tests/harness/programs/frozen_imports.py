"""Exclude what is imported so far from garbage collection, in this process and its forks.

The forkserver imports this module last. A fork would otherwise scan, and so copy, its whole heap.
"""

import gc

gc.collect()
gc.freeze()
