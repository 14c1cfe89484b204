"""What several architectures are made of: layers only."""
