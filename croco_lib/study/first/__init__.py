"""The first protocol, which the tables in data/results and lessons 06 and 07 still stand on."""
