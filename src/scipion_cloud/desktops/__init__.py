"""Desktops: the X session that a job runs, and the relay between a browser and its VNC socket."""
