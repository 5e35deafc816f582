"""The controller: compares what is wanted (the database) with what is (jobs, files), and acts.

It holds nothing that matters: every tick looks afresh, so that it can be killed at any instant.
"""
