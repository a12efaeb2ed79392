"""A whole deployment on one machine: real engines from wheels, a delay proxy, `up` and `demo`. Only the CLI comes here."""
