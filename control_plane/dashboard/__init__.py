"""The dashboard: server-rendered pages over the same store and the same cost report as the API."""

from control_plane.dashboard.views import mount

__all__ = ["mount"]
