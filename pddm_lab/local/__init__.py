"""Similarities of a pair and its gallery: what the neighbourhoods of two items say about the pair."""
