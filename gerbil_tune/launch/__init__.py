"""Hand a command to a cluster: text for SLURM, jobs for Ray. Nothing here loads a heavy library."""
