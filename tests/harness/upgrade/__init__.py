"""An installation whose services are replaced by those of another version, under load."""
