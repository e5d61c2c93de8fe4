"""See :mod:`recyclelora.reports.analysis.layers`."""

from recyclelora.reports.analysis.layers import changed_layers as changed_layers
