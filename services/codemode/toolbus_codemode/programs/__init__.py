"""Run one program: its budget, its nested calls, its response, its events."""
