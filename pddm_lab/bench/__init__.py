"""Measurements of the lab's own speed: each ends in a table for people, and in JSON for what compares them."""
