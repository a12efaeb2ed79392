"""Where a call goes, and why."""
