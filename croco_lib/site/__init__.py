"""The wing that runs the lessons and builds from them a site to read offline."""
