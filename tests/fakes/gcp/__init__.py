"""A Compute Engine that runs on this computer; see `server.py`."""
