"""A race: candidates get seeds one at a time until each comparison is decided."""
