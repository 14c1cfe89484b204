"""Many runs of one command: what is varied, which run comes next, in which process, and how all go on after a kill."""
