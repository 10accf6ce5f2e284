"""Results of calls: response cache, large-result storage and selection."""
