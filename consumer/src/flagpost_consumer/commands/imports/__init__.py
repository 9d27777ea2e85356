"""`flagpost import`: rows of a file become events on the events topic."""
