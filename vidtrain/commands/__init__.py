"""One file per verb; what they share is named for what it does."""
