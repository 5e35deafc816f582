"""Clusters of our own: a private Slurm on one machine, and nodes that come and go with the work."""
