"""Audit service: stores events and makes them queryable, exportable and provable."""
