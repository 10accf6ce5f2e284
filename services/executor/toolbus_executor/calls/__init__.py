"""Run one admitted call: from the bus to its outcome."""
