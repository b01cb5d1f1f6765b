"""Embedding millions of pictures: a job in a folder, worked on in shards by one process or many machines."""
