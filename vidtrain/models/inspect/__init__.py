"""What a network is: sizes, operations, receptive fields. Imports models and layers."""
