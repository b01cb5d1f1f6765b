"""What the command line does, by area."""
