"""One file per data= choice. Imports features, manifest and _files."""
