"""Plotly figures as PNG, for places without JavaScript: notebooks on a code host, and nbconvert's HTML."""
