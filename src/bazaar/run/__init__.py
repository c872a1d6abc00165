"""OCI images as containers with a kernel of their own."""
