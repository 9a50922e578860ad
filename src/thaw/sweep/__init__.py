"""Many runs from one command: each a job in a directory of its own, wherever and in whatever order it is run."""
