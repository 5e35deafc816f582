"""Everything that a machine needs for Scipion Cloud: what it is, whether it is there, how to get it."""
