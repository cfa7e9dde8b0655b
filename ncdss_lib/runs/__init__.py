"""What is done with whole runs: grids, tables of scores, and the networks that they leave."""
