"""How well the product does what it promises, on data that nobody tuned it for. No test: a figure that is missed fails
nothing."""
