"""MLflow as a view of the run directory.

Training only appends to ``metrics.jsonl`` and writes files: they are the outbox. A process of its own mirrors them into
MLflow: a server that is slow, gone or broken can neither delay nor stop a run, and ``python -m recyclelora.tracking
sync <run or sweep directory>`` sends later whatever is missing, each point once. The rooms, from training to MLflow:

``feeder``      starts that process for a run or a sweep; all that training needs, and it imports no MLflow
``follow``      the process: sends every few seconds until training ends
``runs``        one run directory -> one MLflow run;  ``sweeps``: one sweep directory -> a parent with nested runs
``outbox``      points and files that MLflow does not have yet
``description`` names, parameters, tags, data sets of a run
``models``      the adapter as an MLflow model;  ``pyfunc``: loads it
``store``       the MLflow store itself: address, experiments, runs found or created once

Only this package knows MLflow.
"""

from recyclelora.tracking.feeder import Feeder, mirrored, mirrored_sweep, send

__all__ = ["Feeder", "mirrored", "mirrored_sweep", "send"]
