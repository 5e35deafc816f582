"""Shipped for tests: contract suites, and real services on short lease."""
