"""Data flow of programs: which results of tools can reach which calls."""
