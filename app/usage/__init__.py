"""What calls have used and what that costs: folded from the log, priced, reported."""
