"""Parsing that several formats share: text, rows, tables, where files lie. Imports manifest."""
