"""The installation of deploy/compose.yaml, with images that are built here."""
