"""The built-in data set. Imports manifest."""
