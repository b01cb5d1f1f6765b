"""Uses of an embedding beyond retrieval: few-shot classification, transfer, class scaling, the paper's benchmarks."""
