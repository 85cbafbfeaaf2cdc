"""The stages `make_images`, `sample` and `shard`: which images a data set has, in which roles and shards."""
