"""Movies: what their files say, what an alignment found, and pictures of both."""
