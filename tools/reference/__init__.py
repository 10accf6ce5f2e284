"""Generate the reference pages in docs/reference from the code that they describe."""
