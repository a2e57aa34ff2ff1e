"""Amazon EC2: spot and on-demand machines through botocore. See `provider.py`."""
