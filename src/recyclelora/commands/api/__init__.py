"""The Python API: a call is the same run, sweep or comparison as the command of its name."""
