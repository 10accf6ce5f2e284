"""Filter the network traffic of an isolated process."""
