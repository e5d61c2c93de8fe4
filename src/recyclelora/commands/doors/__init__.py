"""Module names of the first release, found through the package's ``__path__``: what they held lives in the rooms."""
