"""The wing that only the lessons need: diagrams, controls, exercises, comparisons; it runs them, builds their site."""
