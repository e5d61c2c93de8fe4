"""Trackers (MLflow, TensorBoard, W&B, those of installed packages) as views of the run directory.

Training only appends to ``metrics.jsonl`` and writes files: they are the outbox. A process of its own for each tracker
mirrors them: a server that is slow, gone or broken can neither delay nor stop a run, and ``recyclelora track sync``
sends later whatever is missing, each point once. From training to the trackers:

``process``     starts those processes for a run or a sweep; all that training needs, and it imports no tracker
``follow``      the process: sends every few seconds until training ends;  also ``sync``
``trackers``    name of a tracker -> what sends one pass to it
``feed``        what is new in a run directory, told to a tracker exactly once
``tensorboard``, ``wandb``, ``mlflow``          the trackers;  ``pyfunc``: loads what was logged to MLflow

Only this package knows MLflow.
"""
