"""Many requests from one table, and which of their pictures are there already."""
