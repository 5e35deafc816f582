"""Sites: the places where jobs can run, as `sites.toml` describes them, and the way there."""
