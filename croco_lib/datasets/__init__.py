"""The wing of named data sets: KuaiRand, MovieLens and Ali-CCP from raw files of any size, to be had by name."""
