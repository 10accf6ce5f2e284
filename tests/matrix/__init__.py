"""Clients of other hands against servers of every family, through one gateway."""
