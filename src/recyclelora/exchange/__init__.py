"""Models on their way out, and released ones on their way in."""
