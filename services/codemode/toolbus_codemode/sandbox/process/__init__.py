"""Processes of programs, forked from a prepared process."""
