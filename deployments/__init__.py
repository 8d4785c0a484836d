"""Who runs it and where: one folder a team, each a code location of its own."""
