"""Parts of `make bench-evidence-flow`: facts on their way from a call to a row."""
