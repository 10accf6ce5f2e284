"""Forms of the APIs for models, which several services read and write (no I/O)."""
