"""Judgement of a result: one verdict per concern, and the alignment that has to come first."""
