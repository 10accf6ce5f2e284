"""Large results: they are stored while they arrive, returned as a preview, and read in parts."""
