"""What a trained similarity does on a gallery: pairs and thresholds, errors, explanations, duplicates, axioms."""
