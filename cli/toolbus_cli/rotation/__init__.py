"""Replacement of keys: the files of each stage, and the data on the bus."""
