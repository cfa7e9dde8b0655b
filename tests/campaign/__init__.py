"""Campaigns against the finished program: wrong inputs, kills and faults, as real processes."""
