"""A trained network as a file that runs without PyTorch: written, compared, quantised, timed, asked."""
