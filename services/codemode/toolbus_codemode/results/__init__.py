"""Large results: storage, preview, reading."""
