"""Formatting of command output."""
