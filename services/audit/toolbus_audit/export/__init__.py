"""Events taken out as files: by command page by page, or on a schedule window by window."""
