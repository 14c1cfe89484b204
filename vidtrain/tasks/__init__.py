"""What networks are trained for: the protocol in task.py, one folder per task. Imports types, errors and sequences."""
