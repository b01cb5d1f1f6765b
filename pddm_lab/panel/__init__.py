"""Several data sets at once: recipes of training, local against global metrics, trained against frozen trunks."""
