"""Loader of the YAML configuration. It reports every error with its line."""
