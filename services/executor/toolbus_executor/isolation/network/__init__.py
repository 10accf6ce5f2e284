"""Network filter of an isolated process."""
