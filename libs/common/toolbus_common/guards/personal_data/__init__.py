"""Personal data: validated patterns, and optionally the models of Presidio."""
