"""Large results: stored while they stream in, returned as a preview, read in parts."""
