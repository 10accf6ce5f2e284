"""Programs that tests start: services with an intended fault, and processes to isolate."""
