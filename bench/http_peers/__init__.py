"""What `bench/http.py` is made of: servers, their load, and the ways from submit to run."""
