"""HTML pages, for all services that have pages."""
