"""May this caller spend that many tokens, and what did they spend? Knows nothing of HTTP, tokenizers or prompts."""
