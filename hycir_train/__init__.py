"""HyCIR: from triplets and plain images to a composed-image-retrieval model and its figures."""
