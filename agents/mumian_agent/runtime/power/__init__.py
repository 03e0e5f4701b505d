"""Power meters of a node and of its site, each in a file of its own."""
