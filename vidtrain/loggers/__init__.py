"""Where the numbers and figures of a training go: one class per destination, and the one that speaks to all of them.

Imports `reports` for figures, `untrusted_data`, `errors`, `types`; knows neither models nor data nor Hydra.
"""
