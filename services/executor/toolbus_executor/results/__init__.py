"""Cache, store and select results of calls."""
