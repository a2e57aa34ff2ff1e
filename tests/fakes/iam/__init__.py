"""IAM as far as roles need it: what a call asks for, and whether a policy lets it through."""
