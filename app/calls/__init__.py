"""The call: from the request for one to its final event."""
