"""The wing of `croco fit`, and of what it keeps beside a run so that raw rows can be scored later."""
