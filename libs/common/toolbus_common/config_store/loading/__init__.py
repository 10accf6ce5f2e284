"""Loader of the YAML configuration, which reports every error with its line."""
