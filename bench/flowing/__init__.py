"""Parts of `make bench-evidence-flow`: events on their way from a call to a row."""
