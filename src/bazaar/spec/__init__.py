"""Class Bazaar and its parts: loading, checking, schema."""
