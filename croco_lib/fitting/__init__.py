"""The wing of `croco fit`."""
