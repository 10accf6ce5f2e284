"""Raw requests, broken in seeded ways, against every listener of a whole gateway."""
