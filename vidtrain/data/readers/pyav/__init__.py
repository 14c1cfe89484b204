"""The inside of the default reader: packets, references, damage, conversion. Imports errors and types only."""
