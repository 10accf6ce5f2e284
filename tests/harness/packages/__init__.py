"""Installation of third-party programs from Debian and npm."""
