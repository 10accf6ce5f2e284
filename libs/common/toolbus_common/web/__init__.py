"""HTML of the pages of several services."""
