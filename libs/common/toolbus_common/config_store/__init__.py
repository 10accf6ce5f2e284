"""Store of the configuration: loading, validation, changes, redaction, keys."""
