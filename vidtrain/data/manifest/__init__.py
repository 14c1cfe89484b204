"""The list of videos: rows, splits and the index on disk. Imports the data's files, nothing above them."""
