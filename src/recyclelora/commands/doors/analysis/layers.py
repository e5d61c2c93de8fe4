"""See :mod:`recyclelora.adapters.changes`."""

from recyclelora.reports.analysis.measure import changed_layers as changed_layers
