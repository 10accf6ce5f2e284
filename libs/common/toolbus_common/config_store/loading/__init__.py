"""Load a YAML configuration, and report every error with its line."""
