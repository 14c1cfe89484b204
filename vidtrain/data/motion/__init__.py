"""The built-in dataset. Imports manifest."""
