"""From waiting events to runs: which batches to make, how they are claimed, and what became of them."""
