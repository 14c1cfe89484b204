"""What a folder that is written to needs: its lock. Imports errors only."""
