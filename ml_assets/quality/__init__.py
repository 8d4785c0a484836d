"""Whether the champion is still as good as when it was chosen: estimated before labels, measured after."""
