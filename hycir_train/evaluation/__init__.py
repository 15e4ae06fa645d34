"""What `evaluate` is made of: gallery features, composed queries, rankings, and a result that says how."""
