"""From argv to a command: parsing, help, error texts."""
