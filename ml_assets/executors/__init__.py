"""How the steps of a run are carried out: each in a process forked from the run's own warm one."""
