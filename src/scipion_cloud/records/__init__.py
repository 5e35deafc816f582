"""The database: what the portal and the controller both read and write. Django models, nothing else."""
