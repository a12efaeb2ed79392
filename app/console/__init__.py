"""The console: what people see of their calls, their fleet and their keys, in a browser."""
