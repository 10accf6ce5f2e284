"""Let people connect their accounts at upstream servers."""
