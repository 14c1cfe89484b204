"""Which part of a clip speaks for a class: maps of it, and what they are worth."""
