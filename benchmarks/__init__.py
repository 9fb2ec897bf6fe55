"""How fast vmoe is, and how much memory it takes: one script a question, results in `benchmarks/results`."""
