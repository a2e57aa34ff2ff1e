"""EC2 and what goes with it, over real HTTP: moto with the semantics that it lacks. See
`account.py`."""
