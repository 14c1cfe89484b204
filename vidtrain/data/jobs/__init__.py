"""Work over many files: a process that can be killed, a pool of them, the journal, files made of files, report.csv."""
