"""One file per data= choice. Imports manifest and _files."""
