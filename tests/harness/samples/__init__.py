"""Generated and collected test data."""
