"""What a network is: sizes, operations, receptive fields, the catalogue. Imports models and layers."""
