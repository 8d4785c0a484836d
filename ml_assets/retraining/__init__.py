"""Whether a pipeline trains anew by itself: what speaks for it, what holds it back, and what came of it."""
