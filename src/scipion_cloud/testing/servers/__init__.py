"""Real storage servers (and one fake, which says so), each for the length of a test: context managers."""
