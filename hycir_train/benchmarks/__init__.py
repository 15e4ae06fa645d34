"""The benchmarks: annotations in their official layouts in, queries and gallery out."""
