"""Hand a command to a cluster: to SLURM's sbatch, or to Ray's jobs API. No heavy library is loaded."""
