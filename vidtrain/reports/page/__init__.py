"""The report of a run as one HTML page: it needs no network, and no script to be read.

Imports the rest of `reports`, `runs`, `untrusted_data`, `terminal`; what is shown comes as plain values (content.py).
"""
