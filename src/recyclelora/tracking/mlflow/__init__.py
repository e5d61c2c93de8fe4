"""Runs and sweeps in MLflow.

``passes``      one pass of a run or a sweep, and the commands ``sync`` and ``register``
``runs``        one run directory -> one MLflow run;  ``sweeps``: one sweep directory -> a ``parent`` with nested runs
``outbox``      points and files that MLflow does not have yet
``models``      the adapter as an MLflow model
``store``       the MLflow store itself: address, experiments, runs found or created once
"""
