"""The ground: errors, files that survive a kill, processes, hardware, progress."""
