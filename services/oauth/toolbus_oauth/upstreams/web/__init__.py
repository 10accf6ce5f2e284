"""The browser flow in which people connect accounts at upstream servers."""
