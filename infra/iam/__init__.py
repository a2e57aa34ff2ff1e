"""What each part of a deployment may do, and why."""
