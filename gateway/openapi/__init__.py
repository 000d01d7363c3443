"""The description of the direct endpoints (OpenAPI 3.1), written from the models that validate them."""
