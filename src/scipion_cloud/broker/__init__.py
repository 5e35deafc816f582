"""The broker: which site a job goes to, with which files, and how its results come home."""
