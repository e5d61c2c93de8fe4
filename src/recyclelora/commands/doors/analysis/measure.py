"""See :mod:`recyclelora.reports.analysis.measure`."""

from recyclelora.reports.analysis.measure import measure as measure
