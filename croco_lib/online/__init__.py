"""The wing that simulates the online test and serves a model: a market, A/B tests, faulty feeds, exported models."""
