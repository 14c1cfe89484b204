"""What a folder that is written to needs: its lock, its name, files that are whole. Imports errors only."""
