"""Measurements that need a place of their own, one at a time."""
