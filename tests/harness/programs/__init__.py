"""Programs that tests start: services with a planted fault, processes to isolate."""
