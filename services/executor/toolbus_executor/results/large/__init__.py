"""Results too large to tell: kept while they stream in, previewed, and read in pieces."""
