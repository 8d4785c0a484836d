"""What is known of a partition's columns without its rows: profiles that add up over months and groups."""
