"""Declaring: a configuration read, checked as a whole, compared, shown and written."""
