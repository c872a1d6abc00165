"""Fakes and conformance helpers for those who build on Bazaar."""
