"""What goes into one request or answer of a function: 6 MB (6,291,556 bytes) of JSON.

Source: AWS Lambda Developer Guide, "Lambda quotas", invocation payload.
"""

from __future__ import annotations

DIRECT_ABOVE_BYTES = 4 * 2**20
"""Bytes are written as base64, four for each three; a tenth is left for the rest of the message."""

LOG_PIECE_BYTES = 960 * 2**10
"""Of a log, which is written as text: one byte may become six, such as `\\u001b`."""
