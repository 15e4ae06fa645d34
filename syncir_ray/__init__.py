"""SynCir on Ray: from unlabelled images to composed-image-retrieval triplets."""

__version__ = "0.1.0"
