"""The report of a run, and a comparison of several, as one HTML page: it needs no network, and no script to be read.

Imports the rest of `reports`, `runs`, `untrusted_data`, `terminal`; what is shown comes as plain values (content.py).
"""
