"""A cloud that exists only in memory: for tests, simulation and demos. See `cloud.py`."""
