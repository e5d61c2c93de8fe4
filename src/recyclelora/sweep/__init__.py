"""The sweep that loses nothing: one driver, a ledger of plain files, trials that run in processes of their own.

A driver asks Optuna (or a grid) for trials, lets an executor run them and tells what came of them. Every trial has a
folder in ``<sweep>/ledger``: the driver writes there what was asked and how it ended, the job writes what it reports
and its outcome. The ledger is the truth; Optuna's storage and MLflow are views of it. Nothing here imports torch.
"""
