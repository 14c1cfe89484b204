"""The default reader and its inside: packets, references, damage, conversion. Imports errors and types only."""

from vidtrain.data.readers.pyav.reader import PyAVReader

__all__ = ["PyAVReader"]
