"""The life of a working copy: an agent locks a project, fetches it, saves it, and gives it back."""
