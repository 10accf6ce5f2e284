"""Instructions to a model in texts: phrases, markup, hidden text, links that carry data."""
