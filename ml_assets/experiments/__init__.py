"""Two models on live rows: who scores which row, how far they disagree, and when one may be called better."""
