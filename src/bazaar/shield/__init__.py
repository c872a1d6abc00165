"""Drops floods before netfilter."""
