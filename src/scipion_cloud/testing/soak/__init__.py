"""The proof that nothing is ever lost: agents that are killed, cut off and starved while people work."""
