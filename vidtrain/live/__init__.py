"""Streams that go on while they are watched: where they come from, their frames, their windows, alarms."""
