"""The wing that checks the paper: the search, the studies, their tables, the rules and the verdicts."""
