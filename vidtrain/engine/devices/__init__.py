"""Processes, parallel strategies, memory format, transfer to the device."""
