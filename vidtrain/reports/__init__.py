"""Tables, figures and texts of results."""
