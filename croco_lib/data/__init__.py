"""From tables of clicks, or a made world, to `MultiDomainData`. Named data sets are in the wing `datasets`."""
