"""Clients of other hands against servers of every era, through one gateway."""
