"""Many runs from one command: jobs, launchers, search."""
