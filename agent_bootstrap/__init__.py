"""The program on a machine that pulls jobs: standard library only, Python 3.8 and later."""
