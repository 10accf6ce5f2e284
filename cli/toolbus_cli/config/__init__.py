"""The configuration file: read with its lines, checked as a whole, never half applied."""
