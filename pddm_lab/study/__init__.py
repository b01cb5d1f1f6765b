"""Methods of metric learning side by side: the same features, batches, steps and selection for all of them."""
