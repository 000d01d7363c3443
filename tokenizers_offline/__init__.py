"""How many tokens is this prompt, for this model? Knows nothing of HTTP or budgets."""
