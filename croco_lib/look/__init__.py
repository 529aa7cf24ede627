"""The wing that looks at a table before any training: its columns, its roles, what is wrong with it."""
