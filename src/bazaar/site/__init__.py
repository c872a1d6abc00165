"""Places where services run, and the balance between them."""
