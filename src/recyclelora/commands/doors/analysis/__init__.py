"""``recyclelora.analysis`` of the first release: see :mod:`recyclelora.reports.analysis`."""
