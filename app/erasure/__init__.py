"""What is to be forgotten, and the keys that make it so: erasure, retention, redaction, the rotation of master keys."""
