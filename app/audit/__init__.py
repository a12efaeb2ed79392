"""Who did what, and who read what was said: entries that nobody can change unseen."""
